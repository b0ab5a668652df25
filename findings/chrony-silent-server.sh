#!/bin/bash
# chronyd stays "synchronised" after its only server has fallen silent, and waitsync says so at once.
#
# Package: Debian 13's chrony 4.6.1-3+deb13u2 (4.3 of Debian 12 does the same).
# Behaviour: the server is ended. 20 polls later its reach is 0, the source is not selectable, and chronyd has
#   logged "Can't synchronise: no selectable sources". `chronyc tracking` goes on with the server's Reference ID,
#   its stratum plus 1 and "Leap status: Normal"; `chronyc waitsync` succeeds at its first try; and chronyd
#   serves its own clients with the same claim. It only widens the root dispersion, by microseconds a second.
# Surprise: a daemon that says in its log that it cannot synchronise is asked by waitsync whether it is
#   synchronised, and that is what boot units and health checks wait for: it holds on the first try after a pause,
#   whatever the clock shows by then, as nothing has been measured since. Only the reach in `chronyc sources`, or
#   the age of the "Ref time", tells.
# Seen on 2026-11-28:
#     log: Can't synchronise: no selectable sources
#     sources: reach 0
#     tracking: Stratum 3, Leap status Normal
#     waitsync: try 1, success
#     served: a third chronyd takes its time from it
# In the product: what a guest claims is held against the measured offset (lab/core/claims.py, audit.py);
#   `time_server: {fault: silent}` and the playbook silent-server make such a server.
# Needs root. Neither chronyd touches the clock (-x). Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh

fetch all trixie chrony=4.6.1-3+deb13u2

cat >"$WORK/server.conf" <<'EOF'
local stratum 2
allow 127.0.0.1
port 1123
cmdport 0
bindcmdaddress /
pidfile /run/server.pid
EOF
cat >"$WORK/client.conf" <<'EOF'
server 127.0.0.1 port 1123 minpoll 0 maxpoll 0 iburst
allow 127.0.0.1
port 1124
cmdport 0
bindcmdaddress /run/chrony/client.sock
pidfile /run/client.pid
EOF
cat >"$WORK/try.sh" <<'EOF'
mkdir -p -m 0750 /run/chrony
chronyd -x -d -u root -f /work/server.conf >/work/server.log 2>&1 &
server=$!
chronyd -x -d -u root -f /work/client.conf >/work/client.log 2>&1 &
ask() { chronyc -c -h /run/chrony/client.sock "$@"; }
turn=0
while ! ask waitsync 1 >/dev/null 2>&1; do
    turn=$((turn + 1))
    [ $turn -lt 30 ] || exit 3
    sleep 1
done
sleep 5
kill -KILL $server
sleep 20
ask sources >/work/sources
ask tracking >/work/tracking
ask waitsync 1 >/dev/null && echo 0 >/work/waitsync
chronyd -Q -t 10 -u root 'server 127.0.0.1 port 1124 iburst' 'pidfile /run/third.pid' 'cmdport 0' 'bindcmdaddress /' \
    >/work/third.log 2>&1 && echo 0 >/work/third
:
EOF
inside all sh /work/try.sh || cannot "chronyd did not synchronise: $(tail -n 1 "$WORK/client.log")"

log=$(grep -o "Can't synchronise: .*" "$WORK/client.log") || true
# chronyc -c: sources has the reach in octal as its sixth field; tracking begins with the reference and its name.
reach=$(cut -d, -f6 "$WORK/sources")
stratum=$(cut -d, -f3 "$WORK/tracking")
leap=$(cut -d, -f14 "$WORK/tracking")
waited=failed
[ ! -e "$WORK/waitsync" ] || waited="try 1, success"
served="nobody"
[ ! -e "$WORK/third" ] || served="a third chronyd takes its time from it"
printf '%s\n' "log: ${log:-nothing}" "sources: reach $reach" "tracking: Stratum $stratum, Leap status $leap" \
    "waitsync: $waited" "served: $served"

[ "$reach" = 0 ] || cannot "the server is still heard"
[ -n "$log" ] || changed "the log"
[ "$leap" = Normal ] || changed "the leap status"
[ -e "$WORK/waitsync" ] || changed "waitsync"
[ -e "$WORK/third" ] || changed "its own clients"
