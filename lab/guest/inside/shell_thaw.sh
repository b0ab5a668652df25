# Thaws a guest's file systems where there is no Python: after shell_clock.sh. The shell is there before they are
# frozen, and of a frozen disk it reads nothing but fsfreeze(8).
#
#     arm S    A      thaw by yourself after S seconds, instead of what was armed before
#     thaw     T N    thaw now; how many were frozen
#     end             thaw nothing by yourself, and end. The end of the input disarms nothing
#
# It begins with R, or with E where there is no fsfreeze.

thaw() { # count: how many
    count=0
    while read -r source point rest; do
        case $source in
        /dev/*)
            if fsfreeze --unfreeze "$point" 2>/dev/null; then count=$((count + 1)); fi
            ;;
        esac
    done </proc/self/mounts
}

if ! command -v fsfreeze >/dev/null; then
    echo E
    exit
fi
echo R
armed=
while read -r what seconds; do
    if [ "$what" != thaw ] && [ -n "$armed" ]; then
        kill "$armed" 2>/dev/null
        armed=
    fi
    case $what in
    arm)
        (
            sleep "$seconds"
            thaw
        ) </dev/null >/dev/null 2>&1 &
        armed=$!
        echo A
        ;;
    thaw)
        thaw
        echo "T $count"
        ;;
    end)
        break
        ;;
    esac
done
