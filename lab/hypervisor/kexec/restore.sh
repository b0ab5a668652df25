#!/bin/busybox sh
# The initramfs of a kernel that kexec has started: continue the guest that waits in reserved memory, then boot
# the host as its own initramfs does (images/debian/files/usr/lib/freezelab/init). restorer.py makes it, and
# keeper.py the files in $kept. What has happened goes to the controller, a mark a line, with this kernel's uptime.
export PATH=/bin
kept=/srv/reserved
disk=/srv/freezelab/kept

mount -t devtmpfs -o nosuid,mode=755 dev /dev
mount -t proc -o nosuid,nodev,noexec proc /proc
read -r first _ </proc/uptime
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mount -t tmpfs -o nosuid,nodev,mode=755 run /run

load() {
    while read -r module; do
        insmod "/modules/$module" || echo "<3>freezelab: cannot load $module" >/dev/kmsg
    done <"/restore/$1"
}

mark() {
    read -r up _ </proc/uptime
    echo "$1 $up $2" >&4
}

load disk
mount -t ext4 -o noatime /dev/vda /root || echo "<0>freezelab: no root file system on /dev/vda" >/dev/kmsg
mount -t devtmpfs -o nosuid,mode=755 dev /root/dev
load card
while [ ! -e /sys/class/net/eth0 ]; do sleep 0.01; done
mac=''
# shellcheck source=/dev/null
. "/root$disk/guest"
ip link set eth0 up
ip link add link eth0 name guest0 address "$mac" type macvtap
ip link set guest0 up
read -r number </sys/class/net/guest0/ifindex

# QEMU begins, and waits where it reads its configuration until KVM and the memory are there.
mkfifo /run/marks /run/qmp-in /run/qmp-out /root/dev/qemu-waits
exec 5<>/run/qmp-in 6<>/run/qmp-out
chroot /root /bin/sh "$disk/qemu" -readconfig /dev/qemu-waits -qmp stdio -incoming defer \
    <&5 >&6 2>"/root$disk/qemu.log" 9<>"/dev/tap$number" &
load kvm &
kvm=$!
load memory
load port

# Marks pass through a fifo: a port whose other end is not open would block.
port=
while [ -z "$port" ]; do
    sleep 0.01
    for one in /sys/class/virtio-ports/*; do
        read -r name <"$one/name" && [ "$name" = org.freezelab.push.0 ] && port=/dev/${one##*/}
    done 2>/dev/null
done
exec 3<>"$port"
cat /run/marks >&3 &
exec 4<>/run/marks
mark init "$first"

while [ ! -b /dev/pmem0 ]; do sleep 0.01; done # it appears some time after
mount -t ext4 -o dax=always /dev/pmem0 "/root$kept"
wait "$kvm"
mark modules
: >/root/dev/qemu-waits
echo '{"execute":"qmp_capabilities"}' >&5
echo '{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true},{"capability":"events","state":true}]}}' >&5
echo "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"exec:cat $kept/state\"}}" >&5
failed=
while read -r answer <&6; do
    case $answer in
        *'"QMP"'*) mark started ;;
        *MIGRATION*'"completed"'*) break ;;
        *'"failed"'* | *'"error"'*) failed=1 && break ;;
    esac
done
if [ -n "$failed" ]; then
    mark failed "$answer"
else
    mark restored
    if [ -e "/root$kept/prove" ]; then
        proof=$(PYTHONPATH=/srv/freezelab/code:/srv/freezelab/packages \
            chroot /root /usr/bin/python3 -m lab.hypervisor.kexec.keeper proof)
        mark proven "$proof"
    fi
    # The controller says when. It may have died: the guest is not kept waiting for it.
    # shellcheck disable=SC3045  # busybox has it
    read -t 5 -r _ <&3
    echo '{"execute":"cont"}' >&5
    while read -r answer <&6; do
        case $answer in
            *RESUME*) break ;;
            *'"error"'*) mark failed "$answer" && break ;;
        esac
    done
    mark resumed
fi

ip link set lo up
ip route add unreachable 169.254.169.254/32
mode='' address='' gateway=''
# shellcheck source=/dev/null
. /root/etc/freezelab/network
if [ "$mode" = static ]; then
    ip address add "$address" dev eth0
    [ -z "$gateway" ] || ip route add default via "$gateway"
else
    udhcpc -i eth0 -q -n -f -t 10 -T 1 -s /dhcp >/dev/null 2>&1
fi
[ ! -e /dev/rtc0 ] || ln -s rtc0 /dev/rtc
mkdir -p /dev/virtio-ports
for one in /sys/class/virtio-ports/*; do
    [ ! -s "$one/name" ] || ln -s "../${one##*/}" "/dev/virtio-ports/$(cat "$one/name")"
done
load later
exec 3>&- 4>&- 5>&- 6>&-
umount /dev 2>/dev/null
mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /run /root/run
exec switch_root /root /sbin/init
