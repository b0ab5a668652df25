# A guest's clock, read and set by the host, for guests without Python: after shell_clock.sh. It speaks the line
# protocol of clock_setter.py but for s, p and q, and has one line more:
#
#     w N S    W N    the clock is set to S, in whole seconds, which every date(1) can
#
# A clock of whole seconds is read as two bounds, as if two readings had shown them.
#
# z forgets frequency and tick by adjtimex(8), where there is one or busybox has it; else they stay as the
# system's own time daemon has left them.
# shellcheck disable=SC2154 # r, t and resolution are of shell_clock.sh

upper() { # u: the latest that the clock can have shown
    u=$r
    [ "$resolution" -lt 1000000000 ] || u=${r%?????????}999999999
}

printf 'H %s sh\n' $$
while read -r what number argument; do
    case $what in
    r)
        real
        upper
        printf 'R %s %s %s\n' "$number" "$u" "$r"
        ;;
    w)
        if date -s "@$argument" >/dev/null 2>&1; then
            printf 'W %s\n' "$number"
        else
            printf 'E %s %s\n' "$number" "$(date -s "@$argument" 2>&1 | head -n 1)"
        fi
        ;;
    t)
        text_of /sys/class/rtc/rtc0/since_epoch
        first=$t
        if [ -z "$first" ]; then
            printf 'E %s there is no RTC in /sys/class/rtc\n' "$number"
            continue
        fi
        while [ "$t" = "$first" ]; do
            real
            before=$r
            text_of /sys/class/rtc/rtc0/since_epoch
        done
        real
        upper
        printf 'T %s %s %s %s\n' "$number" "$t" "$before" "$u"
        ;;
    z)
        { adjtimex -f 0 -t 10000 || busybox adjtimex -f 0 -t 10000; } >/dev/null 2>&1
        printf 'Z %s\n' "$number"
        ;;
    esac
done
