# shellcheck shell=sh
# The rest of the system: root's login, keys, leftovers of the installation.
set -eu
root=$1

chroot "$root" passwd -d root >/dev/null
rm -f "$root"/etc/ssh/ssh_host_*
mkdir -p "$root/root/.ssh"
chmod 700 "$root/root/.ssh"
: >"$root/etc/fstab"
: >"$root/etc/motd"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/cache/debconf/*-old
