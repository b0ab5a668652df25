# Which units and generators run at boot.
set -eu
root=$1
etc=$root/etc/systemd/system

rm -rf "$etc"/*.target.wants/*
mkdir -p "$etc/multi-user.target.wants" "$root/etc/systemd/system-generators"

for generator in "$root"/usr/lib/systemd/system-generators/*; do
    ln -sf /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
done

for unit in \
    systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-udev-trigger.service systemd-udev-settle.service \
    systemd-logind.service systemd-user-sessions.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-random-seed.service systemd-machine-id-commit.service systemd-firstboot.service \
    systemd-sysusers.service systemd-repart.service systemd-binfmt.service systemd-modules-load.service \
    systemd-pcrphase.service systemd-pcrphase-sysinit.service \
    systemd-journal-flush.service systemd-journald-audit.socket systemd-initctl.socket \
    systemd-ask-password-console.path systemd-ask-password-wall.path \
    systemd-tmpfiles-clean.timer systemd-pstore.service systemd-sysctl.service \
    systemd-tmpfiles-setup-dev.service kmod-static-nodes.service \
    dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    cryptsetup.target integritysetup.target veritysetup.target \
    getty.target getty-static.service remote-fs.target \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
    e2scrub_all.timer e2scrub_reap.service
do
    ln -sf /dev/null "$etc/$unit"
done

for unit in ssh qemu-guest-agent acpid; do
    ln -sf "../$unit.service" "$etc/multi-user.target.wants/$unit.service"
done
