# shellcheck shell=sh
# chrony beside systemd-timesyncd, which starts at boot. Debian's packages of the two exclude each other; see
# images/debian/hooks/20-timesync.sh.
set -eu
root=$1
work=$root/tmp/chrony

mkdir "$work"
(cd "$work" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq download chrony)
dpkg-deb --fsys-tarfile "$work"/*.deb | tar -C "$root" -x --keep-directory-symlink \
    --exclude=./usr/share --exclude=./etc/init.d --exclude=./etc/apparmor.d --exclude=./etc/NetworkManager \
    --exclude=./etc/dhcp --exclude=./etc/ppp
mkdir -p "$root/etc/chrony"
rm -r "$work"
chroot "$root" useradd --system --home-dir /var/lib/chrony --shell /usr/sbin/nologin _chrony
chroot "$root" install -o _chrony -g _chrony -m 750 -d /var/lib/chrony /var/log/chrony
