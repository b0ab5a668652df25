#!/usr/bin/env python3
"""Drains this machine before its maintenance, says so, and takes it back into service afterwards.

Asks the metadata service each second for Scheduled Events. While there is one for this machine it is drained:
the command DRAIN has run, and then the event is acknowledged, so that nobody waits longer than needed. When
there is none any more, whatever became of it, UNDRAIN runs. Needs Python 3.6 and nothing else.

What it does depends only on what the last good answer says and on whether the machine is drained. So it is
right as well when an event is cancelled, is never seen as Started, or begins without notice, and when the
incarnation starts again at 1: it is not looked at. Without an answer everything stays as it is.
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
SLOWEST = 10  # times the usual period is the longest wait between two tries that fail
MOST = 1 << 20  # bytes of an answer that are read
BAD = (ValueError, LookupError, TypeError, RecursionError)  # what a strange document may bring about

log = logging.getLogger("drain")


class NoAnswer(Exception):
    """There is no answer, or none that can be used."""


class Service:
    """The metadata service. first: how long its first answer about events may take: that switches them on."""

    def __init__(self, url, first, timeout):
        self.host, self.first, self.timeout = urlsplit(url).netloc, first, timeout

    def ask(self, verb, path, timeout, body=None):
        """What it answers. Directly: the metadata service is never behind a proxy."""
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
        """Let it begin now, on behalf of all machines that it names."""
        self.ask("POST", EVENTS, self.timeout, json.dumps({"StartRequests": [{"EventId": event["EventId"]}]}))


class Handler:
    """What is known and done here. drained: whether DRAIN has run, and UNDRAIN has not since."""

    def __init__(self, service, options):
        self.service, self.options = service, options
        self.name = None
        self.drained = options.state is not None and options.state.exists()
        self.seen = {}
        self.troubles = {}

    def turn(self):
        """Ask once, and do what follows. False when there was no answer."""
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
        except NoAnswer as error:  # it is still Scheduled then, or gone: the next answer tells
            self.complain("acknowledging", str(error))

    def run(self, what, command, event=None):
        """Run one of the user's commands; whether it has succeeded. It is told the event, if any."""
        told = {"EVENT_ID": event["EventId"], "EVENT_TYPE": event["EventType"]} if event else {}
        status = subprocess.call(["/bin/sh", "-c", command], env=dict(os.environ, **told))
        self.complain(what, f"ended with {status}, is tried again" if status else "")
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
        """One line for each change."""
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
        """One line for each change. "": all is well."""
        if trouble != self.troubles.get(about, ""):
            log.info("%s: %s", about, trouble or "well again")
        self.troubles[about] = trouble


def parse():
    say = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--drain", metavar="COMMAND", default=say("DRAIN", "true"), help="takes this machine out of service")
    add("--undrain", metavar="COMMAND", default=say("UNDRAIN", "true"), help="brings it back")
    add(
        "--state",
        metavar="FILE",
        type=Path,
        default=say("STATE"),
        help="is there while drained: outlives a reboot",
    )
    add("--for-all", action="store_true", help="acknowledge also events that name other machines too")
    add("--watch-only", action="store_true", help="write down what is seen, and do nothing")
    add("--once", action="store_true", help="look once, do nothing; fails when there is no answer")
    add("--url", default=say("URL", "http://169.254.169.254"), help="where the metadata service is")
    add("--every", type=float, metavar="SECONDS", default=1.0, help="between two looks; 1")
    add("--timeout", type=float, metavar="SECONDS", default=10.0, help="for an answer; 10")
    add("--first", type=float, metavar="SECONDS", default=150.0, help="for the first answer; 150")
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
