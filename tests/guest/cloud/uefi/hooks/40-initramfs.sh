# shellcheck shell=sh
# An initramfs with the few drivers that find the disk: unpacking all of them takes long under emulation.
set -eu
root=$1

sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
printf '%s\n' virtio_pci virtio_blk >>"$root/etc/initramfs-tools/modules"
chroot "$root" update-initramfs -u
