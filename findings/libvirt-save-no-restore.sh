#!/bin/bash
# libvirt 11.3 saves a guest of QEMU 11.1 without a word, and cannot restore it.
#
# Packages: Debian 13's libvirt-daemon-driver-qemu 11.3.0-3+deb13u3 with qemu-system-x86 1:11.1.3+ds-1~bpo13+1 of
#   its backports, which apt installs together.
# Behaviour: `virsh save` succeeds and ends the guest. `virsh restore` fails: libvirt passes the file by fd:,
#   and QEMU has taken no plain file that way since 11.0.
# Surprise: saving goes by fd: too, but to a pipe, which is still allowed; so the first thing to fail is the
#   way back, when the guest is gone. No package conflict, no warning at the start or at the save.
# Seen on 2026-11-28:
#     save: Domain 'guest' saved to /work/saved
#     restore: fd: migration to a file is not supported. Use file: instead.
#     domains afterwards: 0
# In the product: save-restore into QEMU 11 by a libvirt before 12.1 is refused before the freeze
#   (lab/hypervisor/freeze/save_restore.py; docs/design.md#restore-under-the-old-emulator).
# Needs root. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh && . ./qemu.sh

emulator=1:11.1.3+ds-1~bpo13+1 libvirt=11.3.0-3+deb13u3
fetch all "trixie-backports trixie" "qemu-system-x86=$emulator" "qemu-system-common=$emulator" \
    "qemu-system-data=$emulator" seabios/trixie-backports "libvirt-clients=$libvirt" \
    "libvirt-daemon-common=$libvirt" "libvirt-daemon-driver-qemu=$libvirt"

cat >"$WORK/guest.xml" <<'EOF'
<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
</domain>
EOF
virsh all 'create /work/guest.xml; save guest /work/saved; echo NEXT; restore /work/saved; echo NEXT; list --name' \
    >"$WORK/said" || true
save=$(sed '/^NEXT/,$d' "$WORK/said" | grep -o "Domain 'guest' saved .*") || true
restore=$(grep -o 'fd: migration .*' "$WORK/said") || true
echo "save: ${save:-$(cat "$WORK/said")}"
echo "restore: ${restore:-another answer}"
echo "domains afterwards: $(sed '1,/^NEXT/d; 1,/^NEXT/d' "$WORK/said" | grep -c guest || true)"

[ -n "$save" ] || cannot "the guest was not saved"
[ -n "$restore" ] || changed "the restore: $(sed -n '/^NEXT/,/^NEXT/p' "$WORK/said")"
