#!/bin/bash
# What the findings share: a temporary folder, pinned packages unpacked below it, and a place to run them.
# Nothing is installed, and nothing is left: not on the disk, not among the processes.

set -Eeuo pipefail
trap 'cannot "${BASH_SOURCE[0]##*/}, line $LINENO"' ERR
WORK=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX")
trap 'exit 2' HUP INT TERM
trap _clean EXIT

_clean() {
    local status=$?
    local -a children
    trap - ERR
    exec 2>/dev/null
    mapfile -t children < <(jobs -p)
    # What runs below one of them ends with it: see inside.
    [ ${#children[@]} = 0 ] || kill -KILL "${children[@]}" || true
    wait || true
    rm -rf "$WORK"
    exit $status
}

cannot() {
    echo "could not be tried: $*" >&2
    exit 2
}

changed() {
    echo "changed: $*"
    exit 1
}

needs() {
    local tool
    for tool; do
        command -v "$tool" >/dev/null || cannot "$tool is missing"
    done
}

# fetch ROOT "SUITE…" NAME=VERSION…: these packages, and all that they depend on, unpacked as $WORK/root-ROOT.
# The mirror is the one of this machine's own entry for its Debian release; the last suite is preferred.
fetch() {
    local root=$WORK/root-$1 apt=$WORK/apt-$1 uri suite option log=$WORK/apt-$1.log
    local -a suites
    read -ra suites <<<"$2"
    shift 2
    [ "$(id -u)" = 0 ] || cannot "needs root"
    needs apt-get dpkg dpkg-deb unshare setpriv ip python3
    [ "$(dpkg --print-architecture)" = amd64 ] || cannot "the packages are pinned for amd64"
    # shellcheck source=/dev/null
    uri=$(. /etc/os-release && apt-get indextargets --format "\$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
        'Created-By: Packages' | awk -v own="$VERSION_CODENAME" '$2 == own && $3 == "main" {print $1; exit}')
    [ -n "$uri" ] || cannot "apt has no entry for this Debian release"
    mkdir -p "$apt"/{lists,cache/archives}/partial "$apt/parts" "$root"/usr/{bin,sbin,lib,lib64}
    for suite in "${suites[@]}"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main"
    done >"$apt/sources.list"
    touch "$apt/status"
    local -a options=(-q -y -t "${suites[-1]}")
    for option in State="$apt" State::status="$apt/status" Cache="$apt/cache" Etc::parts="$apt/parts" \
        Etc::sourcelist="$apt/sources.list" Etc::sourceparts=/dev/null Etc::preferencesparts=/dev/null \
        Etc::preferences=/dev/null; do
        options+=(-o "Dir::$option")
    done
    options+=(-o APT::Sandbox::User=root -o Acquire::Languages=none -o APT::Install-Recommends=false)
    apt-get "${options[@]}" update --error-on=any >"$log" 2>&1 || cannot "$(tail -n 1 "$log")"
    apt-get "${options[@]}" --download-only install dash coreutils "$@" >"$log" 2>&1 ||
        cannot "$(grep -m 1 '^E:' "$log")"
    for option in bin sbin lib lib64; do
        ln -sfn "usr/$option" "$root/$option"
    done
    for option in "$apt"/cache/archives/*.deb; do
        dpkg-deb --extract "$option" "$root" || cannot "$option cannot be unpacked"
    done
    rm -rf "$apt"
    mkdir -p "$root"/{dev,proc,sys,run,tmp,etc}
    # What the packages' scripts would have made: libvirt and chrony look these users up.
    printf '%s:x:%s:0::/:/bin/sh\n' root 0 libvirt-qemu 64055 _chrony 901 >"$root/etc/passwd"
    printf '%s:x:%s:\n' root 0 libvirt-qemu 64055 _chrony 901 >"$root/etc/group"
}

# inside ROOT COMMAND…: with $WORK/root-ROOT as its root and $WORK as /work; no network but a loopback of its own,
# no devices but the harmless ones (so no /dev/kvm). All that it starts ends with it, or with its shell.
inside() {
    # shellcheck disable=SC2016
    setpriv --pdeathsig KILL unshare --mount --pid --net --ipc --fork --kill-child sh -ec '
        ip link set lo up
        mkdir -p "$2/work"
        mount --bind "$1" "$2/work"
        mount -t tmpfs -o mode=755 none "$2/dev"
        for node in null zero full random urandom; do
            touch "$2/dev/$node"
            mount --bind "/dev/$node" "$2/dev/$node"
        done
        mount -t proc proc "$2/proc"
        mount -t sysfs -o ro sysfs "$2/sys"
        root=$2; shift 2
        export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
        # Without exec: PID 1 has to collect what ends below it.
        chroot "$root" "$@" || exit' - "$WORK" "$WORK/root-$1" "${@:2}"
}

# await FILE: until it is there.
await() {
    local turn
    for turn in {1..200}; do
        [ ! -e "$1" ] || return 0
        sleep 0.1
    done
    cannot "$1 did not come within ${turn%0} s"
}

# pip_fetch NAME==VERSION…: for python3 with PYTHONPATH=$WORK/python.
pip_fetch() {
    python3 -m pip --version >/dev/null 2>&1 || cannot "pip is missing"
    python3 -m pip install -q --no-input --root-user-action ignore --only-binary :all: --target "$WORK/python" "$@" \
        >"$WORK/pip.log" 2>&1 || cannot "$(grep -m 1 '^ERROR' "$WORK/pip.log" || tail -n 1 "$WORK/pip.log")"
}
