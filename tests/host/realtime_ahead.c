/* A machine whose CLOCK_REALTIME is AHEAD_S seconds ahead, for programs that run with this by LD_PRELOAD.

   Namespaces share that clock, and time_namespaces(7) has none of its own. libfaketime does not do: QEMU, which
   libvirt starts, does not get its settings, and the kernel's stamps of arrived data (socket(7),
   SO_TIMESTAMPNS) stay those of the true clock. The times of files stay true here as well. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
/* A time limit after this is one of REALTIME: no machine is up for 30 years. */
#define IS_REAL(limit) ((limit)->tv_sec > 1000000000)

static int is_real(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

static struct timespec true_limit(const struct timespec *limit)
{
    struct timespec found = *limit;
    if (IS_REAL(limit))
        found.tv_sec -= AHEAD_S;
    return found;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static __typeof__(&clock_gettime) next;
    if (!next)
        next = NEXT(clock_gettime);
    int status = next(clock, now);
    if (!status && is_real(clock))
        now->tv_sec += AHEAD_S;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    static __typeof__(&gettimeofday) next;
    if (!next)
        next = NEXT(gettimeofday);
    int status = next(now, zone);
    if (!status)
        now->tv_sec += AHEAD_S;
    return status;
}

time_t time(time_t *to)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to)
        *to = now.tv_sec;
    return now.tv_sec;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{
    struct timespec limit = flags & TIMER_ABSTIME && is_real(clock) ? true_limit(until) : *until;
    return NEXT(clock_nanosleep)(clock, flags, &limit, left);
}

int pthread_cond_timedwait(pthread_cond_t *restrict what, pthread_mutex_t *restrict lock,
                           const struct timespec *restrict until)
{
    static __typeof__(&pthread_cond_timedwait) next;
    if (!next) /* glibc has an older one of this name as well */
        next = (__typeof__(next))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    struct timespec limit = true_limit(until);
    return next(what, lock, &limit);
}

int sem_timedwait(sem_t *restrict what, const struct timespec *restrict until)
{
    struct timespec limit = true_limit(until);
    return NEXT(sem_timedwait)(what, &limit);
}

ssize_t recvmsg(int file, struct msghdr *message, int flags)
{
    static __typeof__(&recvmsg) next;
    if (!next)
        next = NEXT(recvmsg);
    ssize_t got = next(file, message, flags);
    if (got < 0)
        return got;
    for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one; one = CMSG_NXTHDR(message, one)) {
        if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_TIMESTAMPNS)
            continue;
        struct timespec at;
        memcpy(&at, CMSG_DATA(one), sizeof at);
        at.tv_sec += AHEAD_S;
        memcpy(CMSG_DATA(one), &at, sizeof at);
    }
    return got;
}
