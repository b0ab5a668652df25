#!/bin/sh
# A workload's client for the shell: one ping at a time, with date's clock.
# Used as: command: [./ping.sh, "{web-0}"]
command -v ping >/dev/null || { echo "ping is not installed on this host" >&2; exit 1; }
echo '{"freezelab": 1, "clock": "realtime", "period_ns": 200000000}'
seq=0
while :; do
    sent=$(date +%s%N)
    if ping -c 1 -W 1 "$1" >/dev/null; then ok=true; else ok=false; fi
    done=$(date +%s%N)
    echo "{\"seq\": $seq, \"sent\": $sent, \"done\": $done, \"ok\": $ok}"
    seq=$((seq + 1))
    sleep 0.2
done
