# shellcheck shell=sh
# systemd-timesyncd and ntpsec beside chrony. Debian's packages of the three exclude each other, because their
# services do; their files do not. So these two are unpacked without dpkg's knowledge, with the users that
# their own scripts would make, and no unit of theirs is wanted by anything.
set -eu
root=$1
work=$root/tmp/timesync

mkdir "$work"
(cd "$work" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq download systemd-timesyncd ntpsec)
for package in "$work"/*.deb; do
    # /lib is a link to /usr/lib here, and has to stay one.
    dpkg-deb --fsys-tarfile "$package" | tar -C "$root" -x --keep-directory-symlink \
        --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/lintian \
        --exclude=./usr/share/apport --exclude=./etc/dhcp --exclude=./etc/init.d --exclude=./etc/cron.d \
        --exclude=./etc/apparmor --exclude=./etc/apparmor.d --exclude=./etc/NetworkManager \
        --exclude=./etc/letsencrypt
done
rm -r "$work"
chroot "$root" systemd-sysusers systemd-timesync.conf
chroot "$root" addgroup --system --quiet ntpsec
chroot "$root" adduser --system --quiet --ingroup ntpsec --no-create-home --home /nonexistent ntpsec
chroot "$root" install -o ntpsec -g ntpsec -d /var/lib/ntpsec
