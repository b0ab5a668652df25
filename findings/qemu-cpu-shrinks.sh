#!/bin/bash
# A migration to an older QEMU takes CPU features from the guest, and both sides call it completed.
#
# Packages: qemu-system-x86, Debian 13's 1:10.0.13+ds-0+deb13u1 and Debian 12's 1:7.2+dfsg-7+deb12u18+b3.
# Behaviour: with the accelerator TCG, the machine type pc-q35-7.2 and the CPU model EPYC on both sides, a guest
#   has SHA-NI and RDSEED under 10.0.13 and not under 7.2.22. The migration is completed, says either side.
# Surprise: machine type and named model are what is pinned so that a guest finds the same CPU everywhere, and
#   devices that differ end a migration with an error. CPUID is in no migration stream; what the accelerator
#   lacks is left out with a warning when QEMU starts, among many for features that both lack. `enforce` is
#   no way out: with it neither version starts an EPYC under TCG.
# Seen on 2026-11-28:
#     10.0.13: sha-ni true, rdseed true; migration completed
#     7.2.22: sha-ni false, rdseed false; migration completed
# In the product: lab/hypervisor/handover_check.py compares the features of both processes before the freeze and
#   refuses; docs/design.md#refused-hand-overs.
# Needs root. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh && . ./qemu.sh

fetch new trixie qemu-system-x86=1:10.0.13+ds-0+deb13u1
fetch old bookworm "qemu-system-x86=1:7.2+dfsg-7+deb12u18+b3"

qemu new new -M pc-q35-7.2 -cpu EPYC
qemu old old -M pc-q35-7.2 -cpu EPYC -incoming defer
qmp old migrate-incoming '{"uri": "unix:/work/stream"}' >/dev/null
qmp new migrate '{"uri": "unix:/work/stream"}' >/dev/null

# word NAME COMMAND ARGUMENTS: the status in an answer, or a plain answer.
word() { qmp "$@" | sed 's/.*"status": "\([a-z-]*\)".*/\1/'; }

for _ in {1..100}; do
    [ "$(word old query-status '{}')" = inmigrate ] || break
    sleep 0.1
done
cpu='"path": "/machine/unattached/device[0]"'
found=""
for name in new old; do
    version=$(inside $name qemu-system-x86_64 --version | sed -n 's/.*version \([0-9.]*\).*/\1/p')
    line="$version: sha-ni $(word $name qom-get "{$cpu, \"property\": \"sha-ni\"}")"
    line+=", rdseed $(word $name qom-get "{$cpu, \"property\": \"rdseed\"}")"
    line+="; migration $(word $name query-migrate '{}')"
    echo "$line"
    found+="$line / "
done

[ "$found" = "10.0.13: sha-ni true, rdseed true; migration completed / \
7.2.22: sha-ni false, rdseed false; migration completed / " ] || changed "see above"
