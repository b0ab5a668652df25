# shellcheck shell=sh
# OpenNTPD beside the other time daemons, which Debian's package excludes; its ntpd would take the place of
# ntpsec's, so it has a folder of its own. Its unit is in files/, and nothing wants it.
set -eu
root=$1
work=$root/tmp/openntpd

mkdir "$work"
# debian's hooks have removed the lists of packages.
(cd "$work" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && apt-get -qq update && apt-get -qq download openntpd)
rm -rf "$root"/var/lib/apt/lists/*
mkdir -p "$root/usr/lib/freezelab/openntpd" "$root/etc/openntpd"
dpkg-deb --fsys-tarfile "$work"/*.deb | tar -C "$work" -x
cp "$work/usr/sbin/ntpd" "$root/usr/lib/freezelab/openntpd/ntpd"
cp "$work/usr/sbin/ntpd" "$root/usr/lib/freezelab/openntpd/ntpctl" # it goes by its name
cp "$work/etc/openntpd/ntpd.conf" "$root/etc/openntpd/ntpd.conf"
echo "OpenNTPD $(dpkg-deb -f "$work"/*.deb Version)" >"$root/usr/lib/freezelab/openntpd/version"
# Its libraries are packages of the recipe.
if chroot "$root" ldd /usr/lib/freezelab/openntpd/ntpd | grep 'not found'; then exit 1; fi
# Its unprivileged part: the package's own user, or in older ones as the package's script makes it.
users=usr/lib/sysusers.d/openntpd.conf
if [ -e "$work/$users" ]; then
    cp "$work/$users" "$root/$users"
    chroot "$root" systemd-sysusers openntpd.conf
else
    chroot "$root" adduser --system --quiet --group --no-create-home --home /run/openntpd ntpd
fi
rm -r "$work"
