#!/bin/sh
# A workload's client for the shell: one ping a time, with date's clock.
# Used as: command: [./ping.sh, "{web-0}"]
echo '{"freezelab": 1, "clock": "realtime", "period_ns": 200000000}'
seq=0
while :; do
    sent=$(date +%s%N)
    if ping -c 1 -W 1 "$1" >/dev/null 2>&1; then ok=true; else ok=false; fi
    done=$(date +%s%N)
    echo "{\"seq\": $seq, \"sent\": $sent, \"done\": $done, \"ok\": $ok}"
    seq=$((seq + 1))
    sleep 0.2
done
