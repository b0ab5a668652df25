# shellcheck shell=sh
# GRUB for UEFI where firmware looks without any variable set (UEFI 2.10, 3.5.1.1), in /esp.img, and its menu.
set -eu
root=$1

cmdline=$(cat "$root/cmdline")
rm "$root/cmdline"
mkdir -p "$root/boot/grub" "$root/boot/efi"
cat >"$root/boot/grub/grub.cfg" <<MENU
set timeout=0
menuentry Debian {
    linux /vmlinuz $cmdline
    initrd /initrd.img
}
MENU
cat >"$root/early.cfg" <<'MENU'
search --no-floppy --label cloudimg-rootfs --set=root
configfile ($root)/boot/grub/grub.cfg
MENU
chroot "$root" grub-mkimage -O x86_64-efi -o /BOOTX64.EFI -c /early.cfg -p /EFI/debian \
    part_gpt ext2 normal configfile linux search search_label serial
truncate -s 16M "$root/esp.img"
chroot "$root" mkfs.vfat -n ESP /esp.img >/dev/null
chroot "$root" mmd -i /esp.img ::/EFI ::/EFI/BOOT
chroot "$root" mcopy -i /esp.img /BOOTX64.EFI ::/EFI/BOOT/
rm "$root/early.cfg" "$root/BOOTX64.EFI"
