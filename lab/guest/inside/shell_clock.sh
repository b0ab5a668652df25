# A guest's clocks for programs in POSIX sh, and bash where there is one. text_of FILE puts its first line into
# t. real puts REALTIME in ns into r, which is truncated to $resolution ns, the shell's own (bash, mksh, busybox
# since 1.34), that of a date with %N, or whole seconds. Arithmetic only on small numbers: mksh has 32 bits.
# shellcheck disable=SC2034 # they are for others

LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin
export LC_ALL PATH
unalias -a 2>/dev/null

text_of() { IFS= read -r t 2>/dev/null <"$1" || t=; } 2>/dev/null

if [ -n "${EPOCHREALTIME-}" ]; then
    real() { r=$EPOCHREALTIME; r=${r%.*}${r#*.}000; }
    resolution=1000
else
    case $(date +%N 2>/dev/null) in
    '' | *[!0-9]*)
        real() { r=$(date +%s)000000000; }
        resolution=1000000000
        ;;
    *)
        real() { r=$(date +%s%N); }
        resolution=1
        ;;
    esac
fi
