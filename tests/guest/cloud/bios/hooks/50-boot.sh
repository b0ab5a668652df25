# shellcheck shell=sh
# GRUB's two parts for a disk with a DOS partition table, /boot.img and /core.img, and its menu.
set -eu
root=$1

cmdline=$(cat "$root/cmdline")
rm "$root/cmdline"
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<MENU
set timeout=0
menuentry Debian {
    linux /vmlinuz $cmdline
    initrd /initrd.img
}
MENU
chroot "$root" grub-mkimage -O i386-pc -o /core.img -p '(hd0,msdos1)/boot/grub' \
    biosdisk part_msdos ext2 normal configfile linux
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot.img"
rm -rf "$root/usr/lib/grub"
