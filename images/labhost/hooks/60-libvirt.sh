# shellcheck shell=sh
# The users that libvirt's driver asks for. Debian makes them with libvirt-daemon-system, whose daemon is not needed.
set -eu
root=$1

chroot "$root" adduser --system --quiet --ingroup kvm --no-create-home --home /var/lib/libvirt libvirt-qemu
chroot "$root" addgroup --system --quiet libvirt-qemu
