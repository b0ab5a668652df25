# shellcheck shell=sh
# No identity but the seed's, which a unit unpacks before the network and sshd start.
set -eu
root=$1

rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/var/lib/dbus/machine-id"
: >"$root/etc/machine-id"
echo '/dev/vda1 / ext4 defaults 0 0' >"$root/etc/fstab"
chroot "$root" systemctl -q enable unpack-seed.service systemd-networkd.service
chroot "$root" systemctl -q mask getty@tty1.service serial-getty@ttyS0.service systemd-networkd-wait-online.service
for timer in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all; do
    chroot "$root" systemctl -q mask "$timer.timer"
done
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
