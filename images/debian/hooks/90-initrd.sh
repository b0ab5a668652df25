# shellcheck shell=sh
# /boot/initrd: a busybox and the drivers that init loads, in order, uncompressed.
set -eu
root=$1
kernel=$(cd "$root/lib/modules" && echo *)
work=$root/tmp/initrd

mkdir -p "$work/bin" "$work/modules" "$work/dev" "$work/proc" "$work/sys" "$work/run" "$work/root"
cp "$root/bin/busybox" "$work/bin/busybox"
for applet in sh mount insmod tar ip udhcpc ln cat mkdir switch_root poweroff; do
    ln -s busybox "$work/bin/$applet"
done
cp "$root/usr/lib/freezelab/init" "$root/usr/lib/freezelab/dhcp" "$work/"

# autofs4 and ip_tables: else systemd loads them itself, by way of libkmod and its indexes, which is slow.
for module in virtio_pci virtio_blk virtio_net virtio_console qemu_fw_cfg autofs4 ip_tables; do
    chroot "$root" modprobe -S "$kernel" --show-depends "$module" | while read -r verb path _; do
        name=${path##*/}
        [ "$verb" = insmod ] || continue
        [ -e "$work/modules/$name" ] && continue
        cp "$root$path" "$work/modules/$name"
        echo "$name" >>"$work/modules/order"
    done
done

chroot "$root" sh -c 'cd /tmp/initrd && find . | sort | busybox cpio -o -H newc' >"$root/boot/initrd" 2>/dev/null
rm -rf "$work"
