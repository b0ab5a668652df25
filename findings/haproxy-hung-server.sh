#!/bin/bash
# HAProxy finds a server that hangs down after almost twice the time that "inter 2s fall 3" reads like.
#
# Packages: Debian 12's haproxy 2.6.12-1+deb12u3 and python3.11-minimal's http.server (python3 3.11).
# Behaviour: with `check inter 2s fall 3` a server that stands still is DOWN 10 to 12 s after it stopped answering:
#   up to 2 s until a check begins, 2 s until it has timed out, 2 s until the next one begins, and so on.
# Surprise: the manual calls inter "the delay between two consecutive health checks" (configuration.txt, 5.2), and
#   6 s is what it is taken for. A check that is refused takes no time, so a server that ended is DOWN after 4 to
#   6 s. One that hangs takes (2 x fall - 1) x inter, and up to one inter more. So a freeze of 10 s, which the
#   timers seem to catch, is not noticed; requests to that server wait for all of it.
# Seen on 2026-11-29, inter 1s fall 3, stopped by SIGSTOP at a random time, then ended by SIGKILL:
#     hung: DOWN after 5.2 s, 5.4 s, 5.6 s; ended: DOWN after 2.6 s
#     hung: DOWN after 5.3 s, 5.7 s, 5.8 s; ended: DOWN after 2.3 s
# In the product: the workload haproxy predicts by it (lab/core/workload/shipped/haproxy.py).
# Needs root. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh

fetch haproxy bookworm haproxy=2.6.12-1+deb12u3 python3

cat >"$WORK/haproxy.cfg" <<'EOF2'
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    option httpchk GET /
frontend stats
    bind 127.0.0.1:8404
    stats enable
    stats uri /
backend app
    server a 127.0.0.1:8000 check inter 1s fall 3 rise 2
EOF2
cat >"$WORK/try.py" <<'EOF2'
import random, signal, subprocess, sys, time, urllib.request
serve = [sys.executable, "-m", "http.server", "8000", "--bind", "127.0.0.1"]
server = subprocess.Popen(serve, cwd="/tmp", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
time.sleep(2)
subprocess.Popen(["haproxy", "-f", "/work/haproxy.cfg"], stderr=subprocess.DEVNULL)

def state():
    text = urllib.request.urlopen("http://127.0.0.1:8404/;csv", timeout=5).read().decode()
    return next(line.split(",")[17] for line in text.splitlines() if line.startswith("app,a,"))

def await_state(wanted):
    until = time.monotonic() + 60
    while not state() == wanted:
        assert time.monotonic() < until, f"not {wanted} within 60 s"
        time.sleep(0.02)

time.sleep(1)
for number in range(4):
    await_state("UP")
    time.sleep(2 + random.random())
    server.send_signal(signal.SIGKILL if number == 3 else signal.SIGSTOP)
    began = time.monotonic()
    await_state("DOWN")
    print(round(1000 * (time.monotonic() - began)))
    server.send_signal(signal.SIGCONT)
EOF2
inside haproxy python3 /work/try.py >"$WORK/seen" 2>"$WORK/errors" || cannot "$(tail -n 1 "$WORK/errors")"
mapfile -t took <"$WORK/seen"
tenths() { echo "$(($1 / 1000)).$(($1 % 1000 / 100)) s"; }
echo "hung: DOWN after $(tenths "${took[0]}"), $(tenths "${took[1]}"), $(tenths "${took[2]}"); ended: DOWN after $(tenths "${took[3]}")"
for each in "${took[@]:0:3}"; do
    [[ $each -ge 4800 && $each -le 6500 ]] || changed "a server that hangs is down after $(tenths "$each")"
done
[[ ${took[3]} -le 3500 ]] || changed "a server that ended is down after $(tenths "${took[3]}")"
