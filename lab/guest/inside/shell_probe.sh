# The probe for guests without Python, after shell_clock.sh. It speaks the line protocol of clock_probe.py but
# for s (the host keeps the samples) and K; "-" is a clock that a shell cannot read. Its first clock is the
# steadiest there is: MONOTONIC of /proc/timer_list (root's), BOOTTIME of /proc/uptime, or none, as on the BSDs;
# then there is nothing to sample. A line B has two clocks more: N first real last.
# shellcheck disable=SC2154 # r, t and resolution are of shell_clock.sh

if { IFS= read -r t </proc/timer_list; } 2>/dev/null; then
    steady=mono
    steady() { { read -r m; read -r m; read -r m; } </proc/timer_list; m=${m#now at } m=${m%% *}; }
elif { read -r t </proc/uptime; } 2>/dev/null; then
    steady=boot
    [ "$resolution" -ge 10000000 ] || resolution=10000000
    steady() { read -r m </proc/uptime; m=${m%% *} m=${m%.*}${m#*.}0000000; }
else
    steady=''
    steady() { m=-; }
fi

if sleep 0.01 2>/dev/null; then
    nap=0.1 period=100000000
else
    nap=1 period=1000000000
fi

beats() {
    n=0
    while :; do
        n=$((n + 1))
        steady
        a=$m
        real
        steady
        printf 'B %s %s %s %s\n' "$n" "$a" "$r" "$m"
        sleep "$nap"
    done
}

notable() { # as members of a JSON list; the first line that is new is the one after $mark
    dmesg | sed -n "$mark,\$p" | sed 's/^\[[^]]*\] *//' | grep -E '@NOTABLE@' | head -n 50 |
        tr -d '\001-\011\013-\037' | sed 's/[\\"]/\\&/g; s/.*/"&",/' | tr '\n' ' '
}

beating() { # $1: STOP or CONT. A beat in the middle of a longer line would break it
    [ -z "$job" ] || kill -s "$1" "$job"
}

facts() { # $1: the letter of the answer
    text_of /proc/sys/kernel/random/boot_id
    boot=$t
    text_of /sys/devices/system/clocksource/clocksource0/current_clocksource
    lines=null
    if [ -n "$mark" ]; then
        lines=$(notable)
        lines="[${lines%, }]"
    fi
    kernel=$(uname "$release")
    beating STOP
    printf '%s {"boot_id":"%s","clocksource":"%s","kernel":"%s","python":"","path":"","kernel_lines":%s,' \
        "$1" "$boot" "$t" "$kernel" "$lines"
    printf '"rtc_minus_real_ns":null,"depth":"shell","steady":"%s","resolution_ns":%s,"period_ns":%s}\n' \
        "$steady" "$resolution" "$period"
    beating CONT
}

# Only Linux's messages are known: of another kernel's log nothing is said.
if [ "$(uname -s)" = Linux ]; then release=-r; else release=-sr; fi

mark_log() {
    mark=
    [ "$release" = -r ] || return 0
    if mark=$(dmesg 2>/dev/null); then
        mark=$(($(printf '%s\n' "$mark" | wc -l) + 1))
    else
        mark=
    fi
}

rest() {
    [ -z "$job" ] || kill "$job" 2>/dev/null
    job=
}

job=
trap rest EXIT
mark_log
facts H
while read -r what name; do
    case $what in
    r)
        steady
        a=$m
        real
        steady
        printf 'R %s %s %s - - - - %s %s\n' "$name" "$a" "$r" "$r" "$m"
        ;;
    c)
        rest
        mark_log
        printf 'C\n'
        if [ -n "$steady" ]; then
            beats &
            job=$!
        fi
        ;;
    p)
        rest
        printf 'P\n'
        ;;
    f) facts F ;;
    q) exit ;;
    esac
done
