# shellcheck shell=sh
# A second kernel, of bookworm-backports, in /usr/lib/freezelab/kernels/VERSION: vmlinuz and initrd. The modules
# are in /lib/modules. The first kernel is there as well; what QEMU loads is taken out of /boot by the build.
set -eu
root=$1
work=$root/tmp/kernels
sources=$root/etc/apt/sources.list.d/backports.list

mkdir "$work"
sed -n '/^deb .* bookworm main/{s/ bookworm main/ bookworm-backports main/p;q}' "$root/etc/apt/sources.list" >"$sources"
(
    cd "$work"
    export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
    apt-get -qq update
    package=$(apt-cache depends linux-image-cloud-amd64/bookworm-backports | sed -n 's/^ *Depends: \(linux-image-[0-9]\)/\1/p')
    apt-get -qq download "$package"
)
rm "$sources"
dpkg-deb --fsys-tarfile "$work"/*.deb | tar -C "$root" -x --keep-directory-symlink --exclude=./usr/share

for kernel in "$root"/lib/modules/*; do
    kernel=${kernel##*/}
    place=$root/usr/lib/freezelab/kernels/$kernel
    mkdir -p "$place"
    cp "$root/boot/vmlinuz-$kernel" "$place/vmlinuz"
    [ -e "$root/lib/modules/$kernel/modules.dep" ] && cp "$root/boot/initrd" "$place/initrd" && continue
    rm "$root"/boot/*"-$kernel"
    chroot "$root" depmod "$kernel"
    # As the debian recipe's 90-initrd.sh; these modules are compressed, and busybox's insmod cannot read them.
    initrd=$work/initrd
    mkdir -p "$initrd"
    (cd "$initrd" && "$root/bin/busybox" cpio -id <"$root/boot/initrd" 2>/dev/null && rm -r modules && mkdir modules)
    for module in virtio_pci virtio_blk virtio_net virtio_console qemu_fw_cfg autofs4 ip_tables; do
        chroot "$root" modprobe -S "$kernel" --show-depends "$module" | while read -r verb path _; do
            name=${path##*/}
            name=${name%.xz}
            [ "$verb" = insmod ] || continue
            [ -e "$initrd/modules/$name" ] && continue
            case $path in
                *.xz) xz -dc "$root$path" >"$initrd/modules/$name" ;;
                *) cp "$root$path" "$initrd/modules/$name" ;;
            esac
            echo "$name" >>"$initrd/modules/order"
        done
    done
    chroot "$root" sh -c 'cd /tmp/kernels/initrd && find . | sort | busybox cpio -o -H newc' >"$place/initrd" 2>/dev/null
    rm -r "$initrd"
done
rm -r "$work"
