# shellcheck shell=sh
# The generic kernel has ext4 as a module. A second archive behind the initramfs brings it along, first of all: the
# kernel unpacks both, and the later one's list of modules replaces the other's.
set -eu
root=$1
kernel=$(cd "$root/lib/modules" && echo *)
work=$root/tmp/initrd
mkdir -p "$work"

chroot "$root" sh -c 'cd /tmp/initrd && busybox cpio -id modules/order </boot/initrd' 2>/dev/null
mv "$work/modules/order" "$work/order"
for module in ext4 crc32c_generic; do
    chroot "$root" modprobe -S "$kernel" --show-depends "$module" | while read -r verb path _; do
        name=${path##*/}
        [ "$verb" = insmod ] || continue
        [ ! -e "$work/modules/$name" ] || continue
        cp "$root$path" "$work/modules/$name"
        echo "$name" >>"$work/modules/order"
    done
done
cat "$work/order" >>"$work/modules/order"
rm "$work/order"
chroot "$root" sh -c 'cd /tmp/initrd && find . | sort | busybox cpio -o -H newc' >>"$root/boot/initrd" 2>/dev/null
rm -rf "$work"
