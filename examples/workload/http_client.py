#!/usr/bin/env python3
"""A workload's client: asks for a page four times a second, each request in a thread of its own.

Used as: command: [./http_client.py, "{web-0}", 8080, /]
"""

import http.client
import json
import sys
import threading
import time

PERIOD_NS = 250_000_000
TIMEOUT_S = 5.0


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def say(**members: object) -> None:
    # One write a line: lines of several threads do not mix.
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


def ask(host: str, port: int, path: str, seq: int, due: int) -> None:
    sent = now()
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        say(seq=seq, due=due, sent=sent, done=now(), ok=False, error=str(error)[:80])
    else:
        say(
            seq=seq,
            due=due,
            sent=sent,
            done=now(),
            ok=status == 200,
            error="" if status == 200 else f"{status}",
        )
    finally:
        connection.close()


def main() -> None:
    host, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    say(freezelab=1, clock="monotonic_raw", period_ns=PERIOD_NS)
    first = now()
    seq = 0
    while True:
        due = first + seq * PERIOD_NS
        time.sleep(max(0, due - now()) / 1e9)
        threading.Thread(target=ask, args=(host, port, path, seq, due), daemon=True).start()
        seq += 1


if __name__ == "__main__":
    main()
