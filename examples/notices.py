#!/usr/bin/env python3
"""Drains this machine before its maintenance on Compute Engine, and returns it to service afterwards.

It waits for maintenance-event to change (wait_for_change). A machine there cannot acknowledge: it has the
time of the notice. When there is a notice it runs the command DRAIN, and when there is none any more it runs
UNDRAIN. It needs Python 3.6 and nothing else.

What it does depends only on the last valid answer and on whether the machine is drained. Without an answer it
changes nothing.
"""

import argparse
import http.client
import logging
import subprocess
import time

HOST = "169.254.169.254"
PAUSE_S = 1  # after an error

log = logging.getLogger("notices")


class NoAnswer(Exception):
    """The service did not answer, or not with what was asked for."""


def ask(verb, path, headers, timeout_s):
    """The status, the headers and the body of an answer. No proxy: the service is never behind one."""
    connection = http.client.HTTPConnection(HOST, timeout=timeout_s)
    try:
        connection.request(verb, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read(1 << 20).decode()
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error
    finally:
        connection.close()


class ComputeEngine:
    """Waits up to WAIT_S for a change. A frozen guest gets the answer afterwards."""

    PATH = "/computeMetadata/v1/instance/maintenance-event"
    WAIT_S = 300

    def __init__(self):
        self.etag = "0"

    def notice(self):
        """What is announced; "" for nothing."""
        query = f"?wait_for_change=true&timeout_sec={self.WAIT_S}&last_etag={self.etag}"
        status, headers, body = ask("GET", self.PATH + query, {"Metadata-Flavor": "Google"}, self.WAIT_S + 60)
        if status != 200:
            raise NoAnswer(f"HTTP {status}")  # 503 while the service itself is maintained
        self.etag = headers["ETag"] or "0"
        return "" if body == "NONE" else body


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--drain", default="true", help="the command before maintenance")
    parser.add_argument("--undrain", default="true", help="the command afterwards")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S")
    service, drained = ComputeEngine(), False
    while True:
        try:
            notice = service.notice()
        except NoAnswer as error:
            log.warning("%s", error)
            time.sleep(PAUSE_S)
            continue
        log.info("%s", notice or "no notice")
        if bool(notice) != drained:
            status = subprocess.call(["/bin/sh", "-c", options.drain if notice else options.undrain])
            drained = bool(notice) if status == 0 else drained
            log.info("%s, exit status %d", "drained" if drained else "in service", status)


if __name__ == "__main__":
    main()
