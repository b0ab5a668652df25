# shellcheck shell=sh
set -eu
root=$1

rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname"
echo '/dev/vda1 / ext4 defaults 0 0' >"$root/etc/fstab"
printf 'auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n' >"$root/etc/network/interfaces"
chmod 755 "$root/etc/init.d/read-seed"
chroot "$root" update-rc.d read-seed defaults
sed -i '/getty/d' "$root/etc/inittab"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
