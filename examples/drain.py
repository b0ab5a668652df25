#!/usr/bin/env python3
"""Drains this machine before its maintenance, acknowledges the event, and returns it to service afterwards.

It polls the metadata service for Scheduled Events once a second. When there is an event for this machine, it
runs the command DRAIN and acknowledges the event, so that the maintenance need not wait for NotBefore. When
there is no event any more, for whatever reason, it runs UNDRAIN. It needs Python 3.6 and nothing else.

What it does depends only on the last valid answer and on whether the machine is drained. So it also handles
events that are cancelled, are never seen as Started, or start without notice. It ignores the incarnation,
which may restart at 1. Without an answer it changes nothing.
"""

import argparse
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
INSTANCE = "/metadata/instance?api-version=2021-02-01"
SLOWEST = 10  # the longest wait between two failed polls, in polling intervals
MOST = 1 << 20  # bytes of an answer that are read
BAD = (ValueError, LookupError, TypeError, RecursionError)  # what an invalid document may raise

log = logging.getLogger("drain")


class NoAnswer(Exception):
    """The service did not answer, or not with a valid document."""


class Service:
    """The metadata service. first: time limit of its first answer about events, which enables them."""

    def __init__(self, url, first, timeout):
        self.host, self.first, self.timeout = urlsplit(url).netloc, first, timeout

    def ask(self, verb, path, timeout, body=None):
        """The body of its answer. No proxy: the metadata service is never behind one."""
        connection = http.client.HTTPConnection(self.host, timeout=timeout)
        try:
            connection.request(verb, path, body, {"Metadata": "true"})
            answer = connection.getresponse()
            text = answer.read(MOST)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise NoAnswer(f"HTTP {answer.status} {answer.reason}")
        return text

    def name(self):
        """This machine's name in events. It need not be the host name."""
        try:
            return str(json.loads(self.ask("GET", INSTANCE, self.timeout).decode())["compute"]["name"])
        except BAD as error:
            raise NoAnswer(f"no name in the answer: {error!r}") from error

    def events(self):
        """All events of this machine's availability set, other machines' too."""
        try:
            events = json.loads(self.ask("GET", EVENTS, self.first).decode())["Events"]
            for event in events:
                " ".join([event["EventId"], event["EventType"], event["EventStatus"], *event["Resources"]])
            self.first = self.timeout
            return events
        except BAD as error:
            raise NoAnswer(f"no events in the answer: {error!r}") from error

    def acknowledge(self, event):
        """Let the event start now, on behalf of all machines that it names."""
        self.ask("POST", EVENTS, self.timeout, json.dumps({"StartRequests": [{"EventId": event["EventId"]}]}))


class Handler:
    """The state of this machine. drained: DRAIN has succeeded, and UNDRAIN has not since."""

    def __init__(self, service, options):
        self.service, self.options = service, options
        self.name = None
        self.drained = options.state is not None and options.state.exists()
        self.seen = {}
        self.troubles = {}

    def turn(self):
        """Poll once and act on the answer. False when there was no answer."""
        try:
            if self.name is None:
                self.name = self.service.name()
                log.info("this is %s%s", self.name, ", drained" if self.drained else "")
            events = self.service.events()
        except NoAnswer as error:
            self.complain("service", str(error))
            return False
        self.complain("service", "")
        self.tell(events)
        if not self.options.watch_only:
            self.act([event for event in events if self.name in event["Resources"]])
        return True

    def act(self, mine):
        if mine and not self.drained and self.run("DRAIN", self.options.drain, mine[0]):
            self.mark(True)
        elif not mine and self.drained and self.run("UNDRAIN", self.options.undrain):
            self.mark(False)
        if self.drained:
            for event in mine:
                alone = set(event["Resources"]) == {self.name}
                if event["EventStatus"] == "Scheduled" and (alone or self.options.for_all):
                    self.acknowledge(event)

    def acknowledge(self, event):
        try:
            self.service.acknowledge(event)
            log.info("%s acknowledged", event["EventId"])
            self.complain("acknowledging", "")
        except NoAnswer as error:  # it is still Scheduled, or gone: the next answer shows which
            self.complain("acknowledging", str(error))

    def run(self, what, command, event=None):
        """Run one of the user's commands, with the event in its environment. True when it succeeds."""
        told = {"EVENT_ID": event["EventId"], "EVENT_TYPE": event["EventType"]} if event else {}
        status = subprocess.call(["/bin/sh", "-c", command], env=dict(os.environ, **told))
        self.complain(what, f"exit status {status}, will be retried" if status else "")
        return status == 0

    def mark(self, drained):
        self.drained = drained
        log.info("drained" if drained else "back in service")
        try:
            if self.options.state and drained:
                self.options.state.touch()
            elif self.options.state:
                self.options.state.unlink()
        except OSError as error:
            self.complain("state", str(error))

    def tell(self, events):
        """Log one line for each change."""
        now = {event["EventId"]: event for event in events}
        for event_id, event in now.items():
            if self.seen.get(event_id, {}).get("EventStatus") != event["EventStatus"]:
                before = event.get("NotBefore")  # "" once it has started
                log.info(
                    "%s %s %s%s for %s%s",
                    event_id,
                    event["EventType"],
                    event["EventStatus"],
                    f", not before {before}," if before else "",
                    " ".join(event["Resources"]),
                    "" if self.name in event["Resources"] else " (others)",
                )
        for event_id in self.seen:
            if event_id not in now:
                log.info("%s gone", event_id)
        self.seen = now

    def complain(self, about, trouble):
        """Log one line for each change. trouble: "" when all is well."""
        if trouble != self.troubles.get(about, ""):
            log.info("%s: %s", about, trouble or "works again")
        self.troubles[about] = trouble


def parse():
    say = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--drain", metavar="COMMAND", default=say("DRAIN", "true"), help="takes this machine out of service")
    add("--undrain", metavar="COMMAND", default=say("UNDRAIN", "true"), help="returns it to service")
    add(
        "--state",
        metavar="FILE",
        type=Path,
        default=say("STATE"),
        help="exists while drained: outlives a reboot",
    )
    add("--for-all", action="store_true", help="acknowledge events that name other machines too")
    add("--watch-only", action="store_true", help="print events, do nothing else")
    add("--once", action="store_true", help="poll once, do nothing else; fails without an answer")
    add("--url", default=say("URL", "http://169.254.169.254"), help="address of the metadata service")
    add("--every", type=float, metavar="SECONDS", default=1.0, help="polling interval; 1")
    add("--timeout", type=float, metavar="SECONDS", default=10.0, help="time limit for an answer; 10")
    add("--first", type=float, metavar="SECONDS", default=150.0, help="limit for the first answer; 150")
    options = parser.parse_args()
    options.watch_only = options.watch_only or options.once
    return options


def main():
    options = parse()
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(asctime)sZ %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    handler = Handler(Service(options.url, options.first, options.timeout), options)
    wait = options.every
    while True:
        answered = handler.turn()
        if options.once:
            return 0 if answered else 1
        wait = options.every if answered else min(2 * wait, SLOWEST * options.every)
        time.sleep(wait)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
