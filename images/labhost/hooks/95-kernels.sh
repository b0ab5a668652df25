# shellcheck shell=sh
# The kernels that the lab host may have: its first, and one of bookworm-backports. What QEMU loads is taken out
# of /boot by the build.
set -eu
root=$1

kernel=$(cd "$root/lib/modules" && echo *)
place=$root/usr/lib/freezelab/kernels/$kernel
mkdir -p "$place"
cp "$root/boot/vmlinuz-$kernel" "$place/vmlinuz"
cp "$root/boot/initrd" "$place/initrd"
"$root/usr/lib/freezelab/add-kernel" "$root" bookworm-backports
