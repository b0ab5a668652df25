#!/bin/bash
# A process can open libvirt 11.3's embedded QEMU driver sixteen times, although it closed it each time.
#
# Packages: Debian 13's libvirt-clients and libvirt-daemon-driver-qemu 11.3.0-3+deb13u3.
# Behaviour: one virsh opens qemu:///embed?root=DIR and closes it, again and again. From some time on every open
#   fails for the rest of the process, for any folder. test:///default opens as often as one likes.
# Surprise: only one connection is open at a time, and the message speaks of too many drivers. Each open takes
#   a place in the process's table of drivers, and close does not give it back. A service that connects for
#   each request works for a while and then never again. (libguestfs met it too: its pull request 217.)
# Seen on 2026-11-29:
#     test:///default: 40 of 40 opened
#     qemu:///embed: 16 of 40 opened
#     then: internal error: Too many drivers, cannot register QEMU
# In the product: a command opens it once; a program that opens it too often is told so
#   (lab/hypervisor/binding.py).
# Needs root. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh && . ./qemu.sh

fetch all trixie libvirt-clients=11.3.0-3+deb13u3 libvirt-daemon-driver-qemu=11.3.0-3+deb13u3

# opens URI: how often one virsh opens and closes it, of forty times.
opens() {
    local commands
    printf -v commands "connect $1; %.0s" {1..40}
    LIBVIRT_LOG_OUTPUTS=3:file:/work/libvirt.log inside all virsh -c test:///default "$commands" \
        >"$WORK/said" 2>&1 || true
    echo $((40 - $(grep -c 'failed to connect' "$WORK/said" || true)))
}

test=$(opens test:///default)
echo "test:///default: $test of 40 opened"
embed=$(opens 'qemu:///embed?root=/work/libvirt')
echo "qemu:///embed: $embed of 40 opened"
words=$(grep -m 1 -o 'internal error: Too many drivers.*' "$WORK/said" || true)
echo "then: ${words:-$(tail -n 2 "$WORK/said")}"

[ "$test" = 40 ] || cannot "not even the test driver opens"
[ "$embed" -gt 0 ] || cannot "the embedded driver does not open"
if [ "$embed" -ge 40 ] || [ -z "$words" ]; then
    changed "it opens $embed times"
fi
