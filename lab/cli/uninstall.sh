# shellcheck shell=sh disable=SC2154  # root, venv, state, system, packages, say and die are the launcher's
#
# `./freezelab uninstall`: the launcher reads this in, so that it works without an environment.

# Names of ours below the state folder and the cache; they may be folders of yours, with more in them.
state_names="runs guests libvirt ram keys kept agents doors saved own pytest events tools accelerator.json calibration.json baselines.json nights history.sqlite labhost.lock"
cache_names="images golden emulators labhost"

# found FOLDER NAME...: those that are there, a path a line.
found() {
    folder=$1
    shift
    for name in "$@"; do
        [ -e "$folder/$name" ] || [ -L "$folder/$name" ] && printf '%s\n' "$folder/$name"
    done
}
# states: this state folder and those of pytest's sessions in it, a path a line.
states() {
    for folder in "$state" "$state"/pytest/*; do
        [ ! -d "$folder/libvirt" ] || printf '%s\n' "$folder"
    done
}
# in_memory: their folders on the RAM file system, a path a line.
in_memory() {
    states | while IFS= read -r each; do
        readlink -- "$each/libvirt/run"
        readlink -- "$each/ram"
    done | while IFS= read -r path; do
        case $path in "/dev/shm/freezelab-$(id -u)-"*) [ -d "$path" ] && [ -O "$path" ] && printf '%s\n' "$path" ;; esac
    done
}
# alive: ids of their QEMU processes, which nobody controls.
alive() {
    states | while IFS= read -r each; do
        for file in "$each"/libvirt/run/qemu/*.pid; do
            pid=$(cat -- "$file" 2>/dev/null) || continue
            [ -r "/proc/$pid/cmdline" ] || continue
            case $(tr '\0' ' ' <"/proc/$pid/cmdline") in *qemu*) printf '%s ' "$pid" ;; esac
        done
    done
}
# night: the units of the night of this state folder, a path a line. The unit quotes the folder as systemd has it.
night() {
    folder=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    quoted=$(printf %s "$state" | sed 's/\\/&&/g; s/"/\\"/g; s/%/%%/g')
    grep -qsF "Environment=\"FREEZELAB_HOME=$quoted\"" "$folder/freezelab-nightly.service" || return 0
    found "$folder" freezelab-nightly.timer freezelab-nightly.service timers.target.wants/freezelab-nightly.timer
}
# stop_night: it begins no run while we remove what it needs.
stop_night() {
    have systemctl || return 0
    systemctl --user disable --now freezelab-nightly.timer >/dev/null 2>&1
    systemctl --user stop freezelab-nightly.service >/dev/null 2>&1
    systemctl --user clean --what=state freezelab-nightly.timer >/dev/null 2>&1
    return 0
}
# what_goes: all that is ours, a path a line.
# shellcheck disable=SC2086  # lists of words
what_goes() {
    [ ! -e "$venv/.lock" ] || printf '%s\n' "$venv"
    found "$cache" $cache_names
    found "$state" $state_names
    # Drafts of those two files, of a command that was killed.
    find "$state" -maxdepth 1 -type f \( -name '.accelerator-*' -o -name '.calibration.json.new' \) 2>/dev/null
    in_memory
    night
    [ ! -w "$root" ] || find "$root/lab" "$root/tests" -name __pycache__ -prune 2>/dev/null
}

uninstall() {
    agreed=
    for option in "$@"; do
        case $option in
            --yes | -y) agreed=yes ;;
            *)
                say "usage: freezelab uninstall [--yes]"
                exit 2
                ;;
        esac
    done
    cache=${FREEZELAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/freezelab}
    case $cache in /*) ;; *) cache=$PWD/$cache ;; esac

    states | while IFS= read -r each; do
        if [ -e "$each/libvirt/lock" ] &&
            grep -q "POSIX .*:$(stat -c %i "$each/libvirt/lock") " /proc/locks; then
            die "another freezelab (pid $(cat "$each/libvirt/lock")) uses $each; wait until it ends, or end it"
        fi
    done || exit
    going=$(what_goes)
    if [ -z "$going" ]; then
        say "there is nothing of freezelab but the clone $root"
    else
        say "this will be removed, with all runs and kept guests:"
        printf '%s\n' "$going" | grep -v /__pycache__ | sed 's/^/    /' >&2
        if [ -z "$agreed" ]; then
            [ -t 0 ] || die "nothing was removed; to confirm: $0 uninstall --yes"
            printf 'freezelab: remove it? [y/N] ' >&2
            read -r answer || answer=
            case $answer in
                y | Y | yes) ;;
                *) die "nothing was removed" ;;
            esac
        fi
        nightly=$(night)
        [ -z "$nightly" ] || stop_night
        [ ! -e "$venv/.stamp" ] || states | while IFS= read -r each; do
            FREEZELAB_HOME=$each "$venv/bin/python" "$venv/bin/freezelab" down --all >&2 </dev/null || :
            FREEZELAB_HOME=$each "$venv/bin/python" "$venv/bin/freezelab" recover >&2 </dev/null ||
                die "guests of $each could not be ended; nothing was removed"
        done || exit
        running=$(alive)
        [ -z "$running" ] ||
            die "guests of $state are still running (QEMU pid $running); nothing was removed. $0 recover ends them"
        installed=$(cat "$venv/.installed" 2>/dev/null)
        # All of the list before anything goes: the links to folders in memory are on it as well.
        going=$(what_goes)
        printf '%s\n' "$going" | while IFS= read -r path; do
            rm -rf -- "$path" || say "$path cannot be removed"
        done
        [ -z "$nightly" ] || ! have systemctl || systemctl --user daemon-reload >/dev/null 2>&1 || :
        for folder in "$state" "$cache"; do
            rmdir -- "$folder" 2>/dev/null
            [ ! -d "$folder" ] || say "left, because it has other files: $folder"
        done
    fi
    left_behind
}

# left_behind: what uninstall does not remove, because others may use it by now, and how to.
left_behind() {
    named=$(printf '%s\n' "${installed:-}" | sed -n 's/^packages //p' | tr '\n' ' ')
    if [ -n "$named" ]; then
        say "left: the packages that set-up installed. To remove those that you do not need:"
        case $system in
            apt) printf '\n    apt-get purge %s&& apt-get autoremove\n\n' "$named" >&2 ;;
            dnf) printf '\n    dnf remove %s\n\n' "$named" >&2 ;;
        esac
    else
        # shellcheck disable=SC2086  # a list of words
        say "left: packages, if set-up installed any of these: $(printf '%s ' $packages)"
    fi
    case ${installed:-} in
        *"user libvirt-qemu"*)
            say "left: the user and group libvirt-qemu, which set-up added: userdel libvirt-qemu; groupdel libvirt-qemu"
            ;;
    esac
    say "left: pip's own cache (python3 -m pip cache purge), and the clone: rm -r $root"
}
