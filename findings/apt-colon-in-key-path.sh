#!/bin/bash
# apt finds no key in a file whose path has a colon, and says that the key is not there.
#
# Package: Debian 12's apt 2.6.1.
# Behaviour: Signed-By (or [signed-by=…]) with the path of a keyring. The same file is found as /work/plain/key.gpg
#   and not as /work/co:lon/key.gpg: NO_PUBKEY, the repository is not signed.
# Surprise: sources.list(5) wants an absolute path and separates several by commas or blanks; colons are in the paths
#   of caches by time of day, by URL and by container image. The error names the key and not the path, so it
#   reads as an old keyring.
# Seen on 2026-11-28:
#     /work/plain/key.gpg: verified
#     /work/co:lon/key.gpg: the public key is not available
# In the product: lab/host/emulators_apt.py refuses such a folder beforehand, with the reason.
# Needs root. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh

fetch all bookworm apt=2.6.1 gpgv gpg gpg-agent debianutils mawk grep sed findutils

cat >"$WORK/repository.sh" <<'EOF'
set -e
export HOME=/work/home
mkdir -p -m 700 /work/home/.gnupg
mkdir -p /work/repository /work/plain /work/co:lon
cd /work/repository
gpg -q --batch --passphrase '' --quick-generate-key nobody@example.invalid ed25519 sign
gpg -q --export >/work/plain/key.gpg
cp /work/plain/key.gpg /work/co:lon/key.gpg
touch Packages
{
    echo "Suite: test"
    echo "Codename: test"
    echo "Date: $(date -uR)"
    echo "Architectures: amd64"
    echo "SHA256:"
    echo " $(sha256sum <Packages | cut -c1-64) 0 Packages"
} >Release
gpg -q --batch --clearsign -o InRelease Release
EOF
cat >"$WORK/update.sh" <<'EOF'
mkdir -p /etc/apt/apt.conf.d /etc/apt/preferences.d /var/lib/apt/lists/partial /var/cache/apt/archives/partial
mkdir -p /var/lib/dpkg
touch /var/lib/dpkg/status
rm -rf /var/lib/apt/lists/*
echo "deb [signed-by=$1] file:/work/repository ./" >/etc/apt/sources.list
apt-get -o APT::Sandbox::User=root update
EOF
inside all sh /work/repository.sh >"$WORK/log" 2>&1 || cannot "$(tail -n 1 "$WORK/log")"

# update KEYRING: what comes of it, in words.
update() {
    inside all sh /work/update.sh "$1" >"$WORK/log" 2>&1 || true
    if grep -q NO_PUBKEY "$WORK/log"; then
        echo "$1: the public key is not available"
    elif grep -q "^E:\|^W:" "$WORK/log"; then
        cannot "$(grep -m 1 "^E:\|^W:" "$WORK/log")"
    else
        echo "$1: verified"
    fi
}

found=$(update /work/plain/key.gpg; update /work/co:lon/key.gpg)
echo "$found"

[ "$found" = "/work/plain/key.gpg: verified
/work/co:lon/key.gpg: the public key is not available" ] || changed "see above"
