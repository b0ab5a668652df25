#!/usr/bin/env python3
"""Drains this machine before its maintenance on Compute Engine or EC2, and returns it to service afterwards.

On Compute Engine it waits for maintenance-event to change (wait_for_change). On EC2 it asks once a second for
scheduled events and for a Spot interruption, with a session token (IMDSv2). A machine in these clouds cannot
acknowledge: it has the time of the notice. When there is a notice it runs the command DRAIN, and when there
is none any more it runs UNDRAIN. It needs Python 3.6 and nothing else.

What it does depends only on the last valid answer and on whether the machine is drained. Without an answer it
changes nothing.
"""

import argparse
import http.client
import json
import logging
import subprocess
import time
from urllib.parse import urlsplit

URL = "http://169.254.169.254"
PAUSE_S = 1  # after an error

log = logging.getLogger("notices")


class NoAnswer(Exception):
    """The service did not answer, or not with what was asked for."""


def ask(host, verb, path, headers, timeout_s):
    """The status, the headers and the body of an answer. No proxy: the service is never behind one."""
    connection = http.client.HTTPConnection(host, timeout=timeout_s)
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

    def __init__(self, host):
        self.host, self.etag = host, "0"

    def notice(self):
        """What is announced; "" for nothing."""
        path = f"{self.PATH}?wait_for_change=true&timeout_sec={self.WAIT_S}&last_etag={self.etag}"
        flavor = {"Metadata-Flavor": "Google"}
        status, headers, body = ask(self.host, "GET", path, flavor, self.WAIT_S + 60)
        if status != 200:
            raise NoAnswer(f"HTTP {status}")  # 503 while the service itself is maintained
        self.etag = headers["ETag"] or "0"
        return "" if body == "NONE" else body


class Ec2:
    """Polls. A token is renewed when it is refused: it may have expired while the guest was frozen."""

    TOKEN, PATHS = "/latest/api/token", ("events/maintenance/scheduled", "spot/instance-action")
    TTL_S, EVERY_S = 21600, 1

    def __init__(self, host):
        self.host, self.token, self.next = host, "", 0.0

    def notice(self):
        """What is announced; "" for nothing."""
        time.sleep(max(0.0, self.next - time.monotonic()))
        self.next = time.monotonic() + self.EVERY_S
        found = [self.get(path) for path in self.PATHS]
        events = [event for event in json.loads(found[0] or "[]") if event["State"] == "active"]
        texts = ["{Code} {EventId} not before {NotBefore}".format(**event) for event in events]
        return "; ".join(texts + [text for text in found[1:] if text])

    def get(self, path):
        """The value; "" when there is none."""
        status, body = 401, ""
        for _ in range(2):
            if self.token:
                headers = {"X-aws-ec2-metadata-token": self.token}
                status, _, body = ask(self.host, "GET", "/latest/meta-data/" + path, headers, 10)
            if status != 401:
                break
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(self.TTL_S)}
            granted, _, self.token = ask(self.host, "PUT", self.TOKEN, headers, 10)
            if granted != 200:
                raise NoAnswer(f"HTTP {granted} to the request for a token")
        if status not in (200, 404):
            raise NoAnswer(f"HTTP {status}")
        return body if status == 200 else ""


CLOUDS = {"gce": ComputeEngine, "ec2": Ec2}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cloud", choices=sorted(CLOUDS), default="gce", help="the cloud; default gce")
    parser.add_argument("--drain", default="true", help="the command before maintenance")
    parser.add_argument("--undrain", default="true", help="the command afterwards")
    parser.add_argument("--url", default=URL, help="the address of the service; default %(default)s")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S")
    service, drained, last = CLOUDS[options.cloud](urlsplit(options.url).netloc), False, None
    while True:
        try:
            notice = service.notice()
        except (NoAnswer, ValueError, LookupError, TypeError) as error:  # or no valid document
            log.warning("%s", error)
            time.sleep(PAUSE_S)
            continue
        if notice != last:
            log.info("%s", notice or "no notice")
            last = notice
        if bool(notice) != drained:
            status = subprocess.call(["/bin/sh", "-c", options.drain if notice else options.undrain])
            drained = bool(notice) if status == 0 else drained
            log.info("%s, exit status %d", "drained" if drained else "in service", status)


if __name__ == "__main__":
    main()
