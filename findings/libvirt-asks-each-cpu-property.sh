#!/bin/bash
# libvirt 11.3 asks QEMU for each property of the CPU, one by one, at every start of an x86 guest, also with
# check='none', and most of the CPU time of QEMU's start goes into reading these questions.
#
# Packages: Debian 13's libvirt-clients and libvirt-daemon-driver-qemu 11.3.0-3+deb13u3 (9.0.0 of Debian 12 does
#   the same), qemu-system-x86 1:10.0.13+ds-0+deb13u1.
# Behaviour: a guest without devices and with <cpu check='none'> is started paused. libvirt sends one qom-get for
#   each Boolean property of its virtual CPU, and waits for each answer. QEMU's monitor takes one byte in each
#   turn of its loop, so the thread that reads the questions uses more CPU time than the rest of QEMU.
# Surprise: nothing is to be checked, one query-cpu-model-expansion would tell it all, and the same version of
#   QEMU has answered the same questions before. A start takes 0.2 s longer, and many at once more.
# Seen on 2026-11-29:
#     check='none': 464 of 477 commands are qom-get of the CPU, 55 of 55 KB
#     QEMU's monitor thread: 19 ticks; its other threads: 3
#     QEMU's monitor thread: more CPU time than all its other threads
# In the product: docs/design.md names it where it says what a start costs; nothing can be set against it.
# Needs root. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh && . ./qemu.sh

fetch all trixie qemu-system-x86=1:10.0.13+ds-0+deb13u1 libvirt-clients=11.3.0-3+deb13u3 \
    libvirt-daemon-driver-qemu=11.3.0-3+deb13u3

cat >"$WORK/guest.xml" <<'XML'
<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <devices/>
</domain>
XML

virsh all version >"$WORK/version" # writes qemu.conf
: >"$WORK/said"
LIBVIRT_LOG_FILTERS=1:qemu.qemu_monitor LIBVIRT_LOG_OUTPUTS=1:file:/work/monitor.log \
    inside all virsh -c 'qemu:///embed?root=/work/libvirt' \
    'create /work/guest.xml --paused; event guest lifecycle --timeout 30' >"$WORK/said" 2>&1 &
for _ in {1..300}; do
    ! grep -q '^Domain .* created' "$WORK/said" || break
    sleep 0.1
done
grep -q '^Domain .* created' "$WORK/said" || cannot "libvirt: $(head -n 3 "$WORK/said")"

grep -o 'SEND_MSG.*' "$WORK/monitor.log" | sed 's/.*msg=//' >"$WORK/sent"
grep '"qom-get".*"/machine/unattached/device\[0\]"' "$WORK/sent" >"$WORK/asked" || true
all=$(wc -l <"$WORK/sent") asked=$(wc -l <"$WORK/asked")
echo "check='none': $asked of $all commands are qom-get of the CPU," \
    "$(($(wc -c <"$WORK/asked") / 1000)) of $(($(wc -c <"$WORK/sent") / 1000)) KB"

# The CPU time of QEMU's threads, in ticks (proc(5), stat).
monitor=0 others=0
for thread in /proc/[0-9]*/task/[0-9]*; do
    [ "$(readlink "${thread%/task/*}/root")" = "$WORK/root-all" ] || continue
    grep -qz 'guest=guest' "${thread%/task/*}/cmdline" || continue
    line=$(<"$thread/stat")
    read -ra fields <<<"${line##*) }"
    ticks=$((fields[11] + fields[12]))
    case $line in
        *mon_iothread*) monitor=$((monitor + ticks)) ;;
        *) others=$((others + ticks)) ;;
    esac
done
echo "QEMU's monitor thread: $monitor ticks; its other threads: $others"
[ $((monitor + others)) -gt 0 ] || cannot "QEMU's threads are not found"
[ "$monitor" -le "$others" ] || echo "QEMU's monitor thread: more CPU time than all its other threads"

[ "$asked" -gt $((all * 9 / 10)) ] || changed "libvirt asks $asked times"
[ "$monitor" -gt "$others" ] || changed "the monitor thread uses less than the others"
