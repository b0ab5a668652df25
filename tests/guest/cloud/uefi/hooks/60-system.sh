# shellcheck shell=sh
# What images for clouds have in common: no identity of their own, and no source of it but the NoCloud seed.
set -eu
root=$1

rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/var/lib/dbus/machine-id"
: >"$root/etc/machine-id"
echo 'LABEL=cloudimg-rootfs / ext4 defaults 0 0' >"$root/etc/fstab"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
