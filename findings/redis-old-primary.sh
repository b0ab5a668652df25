#!/bin/bash
# A Redis primary that was frozen acknowledges writes for some 10 s after it wakes, and loses all of them.
#
# Packages: Debian 12's redis-server and redis-sentinel 5:7.0.15-1~deb12u7.
# Behaviour: while the primary stands still, two Sentinels make its replica the primary. When it wakes, its own
#   Sentinel learns of that within 0.1 s and publishes +switch-master. The old primary is demoted only some 10 s
#   later, and until then it answers OK to every write of a client that is still connected to it.
# Surprise: those who know of the new primary leave the old one alone for so long. A Sentinel that sees a primary
#   where it expects a replica waits for four of its greetings, 8 s, and for the next INFO (sentinel.c,
#   SENTINEL_PUBLISH_PERIOD), and the old primary's own Sentinel is in TILT for 30 s and does nothing. A client
#   without a timeout (redis-py's default) stays on the connection that it has, so the window is open for all
#   that it had sent during the freeze and for 10 s more.
# Seen on 2026-11-29, down-after-milliseconds 3000, frozen for 10 s by SIGSTOP:
#     the Sentinel beside the old primary named the new one after 0.0 s
#     the old primary took writes for 9.9 s: 87 were acknowledged, of which 87 are lost
# In the product: the workload redis-sentinel counts both (lab/core/workload/shipped/redis_sentinel.py).
# Needs root. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh

fetch redis bookworm redis-server=5:7.0.15-1~deb12u7 redis-sentinel=5:7.0.15-1~deb12u7 redis-tools=5:7.0.15-1~deb12u7

cat >"$WORK/try.sh" <<'EOF2'
set -eu
cd /work
for number in 1 2; do
    mkdir "server-$number"
    redis-server --bind "127.0.2.$number" --bind-source-addr "127.0.2.$number" --protected-mode no \
        --dir "/work/server-$number" --save '' $([ "$number" = 1 ] || echo --replicaof 127.0.2.1 6379) >/dev/null &
    eval "server$number=\$!"
done
for number in 1 2 3; do
    cat >"sentinel-$number" <<EOF3
bind 127.0.2.$number
port 26379
sentinel announce-ip 127.0.2.$number
sentinel monitor mymaster 127.0.2.1 6379 2
sentinel down-after-milliseconds mymaster 3000
EOF3
    redis-sentinel "/work/sentinel-$number" >/dev/null &
    eval "sentinel$number=\$!"
done
named() { redis-cli -h "127.0.2.$1" -p 26379 sentinel get-master-addr-by-name mymaster | head -n 1; }
others() { redis-cli -h "127.0.2.$1" -p 26379 sentinel master mymaster | grep -A1 -x "$2" | tail -n 1; }
for turn in $(seq 100); do
    [ "$(others 2 num-other-sentinels) $(others 3 num-other-sentinels) $(others 2 num-slaves)" != "2 2 1" ] || break
    sleep 0.3
done
sleep 2
kill -STOP "$server1" "$sentinel1"
sleep 10
[ "$(named 2)" = 127.0.2.2 ] || { echo "no failover"; exit 3; }
kill -CONT "$server1" "$sentinel1"
now() { date +%s%N; }
woke=$(now) knows=0 written=0 last=$(now)
while [ $(($(now) - woke)) -lt 30000000000 ]; do
    [ "$knows" != 0 ] || [ "$(named 1)" != 127.0.2.2 ] || knows=$(now)
    [ "$(redis-cli -h 127.0.2.1 set "key-$((written + 1))" x 2>/dev/null)" = OK ] || break
    written=$((written + 1)) last=$(now)
    sleep 0.1
done
sleep 3
kept=$(redis-cli -h 127.0.2.2 --raw keys 'key-*' | grep -c . || true)
echo "$(((knows - woke) / 100000000)) $(((last - woke) / 100000000)) $written $((written - kept))"
EOF2
inside redis sh /work/try.sh >"$WORK/seen" 2>"$WORK/errors" || cannot "$(tail -n 1 "$WORK/errors" "$WORK/seen")"
read -r knows took written lost <"$WORK/seen"
tenths() { echo "$(($1 / 10)).$(($1 % 10)) s"; }
echo "the Sentinel beside the old primary named the new one after $(tenths "$knows")"
echo "the old primary took writes for $(tenths "$took"): $written were acknowledged, of which $lost are lost"
[[ $knows -ge 0 && $knows -lt 30 ]] || changed "its own Sentinel does not know the new primary"
[[ $took -gt 50 ]] || changed "it is demoted earlier"
[[ $lost = "$written" && $lost -gt 0 ]] || changed "not all of them are lost"
