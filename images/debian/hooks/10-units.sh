# shellcheck shell=sh
# Which units and generators run at boot. Nothing is masked but generators: what a guest needs later
# (udev, timers, networkd …) can be started. It only is not wanted at boot.
set -eu
root=$1
etc=$root/etc/systemd/system

mkdir -p "$root/etc/systemd/system-generators"
for generator in "$root"/usr/lib/systemd/system-generators/*; do
    ln -sf /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
done

rm -rf "$etc"/*.wants "$root"/usr/lib/systemd/system/*.wants
want() { # target unit...
    mkdir -p "$etc/$1.wants"
    for unit in $2; do
        ln -s "/lib/systemd/system/$unit" "$etc/$1.wants/$unit"
    done
}
# dbus.socket only listens: the bus starts when somebody asks for it (timedatectl, timesyncd).
want sockets.target "systemd-journald.socket systemd-journald-dev-log.socket dbus.socket"
want sysinit.target "systemd-journald.service systemd-tmpfiles-setup.service"
for unit in ssh qemu-guest-agent acpid; do
    mkdir -p "$etc/multi-user.target.wants"
    ln -s "../$unit.service" "$etc/multi-user.target.wants/$unit.service"
done
ln -sf /lib/systemd/system/multi-user.target "$etc/default.target"
