# shellcheck shell=sh
# A third kernel, where trixie-backports has one. An image without it is one all the same: `labhost up --kernel`
# and replace-host-kernel name the kernels that it has.
set -eu
root=$1

"$root/usr/lib/freezelab/add-kernel" "$root" trixie-backports || [ $? -eq 3 ]
