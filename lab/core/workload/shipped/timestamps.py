"""timestamps: what a guest writes down is dated by its own clock: answers, log lines, signed tokens, files.

Each request has the guest's service log a line through the system's own syslog socket, issue a token with
`iat` and `exp` (RFC 7519) and write a file. The lines are read back from the guest's journal, so what is
counted are the times that a reader of the log sees. With two servers the other one is not frozen, and what
both wrote can be put in order by time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.core.workload.prediction import EVER_NS, Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.option_values import duration_ns, one_of
from lab.core.workload.spec import WorkloadExpect

PORT = 7011
KEY = b"everybody knows it"
"""Signs the tokens."""

MOST_LINES = 20
"""Log lines in an answer, so that it is one packet."""

LIFETIME = (NS_PER_S, 24 * 3600 * NS_PER_S)
"""Of a token, from and to, in ns."""

_CONFIG = "/etc/lab-timestamps.json"

# It answers {"number": …, "have": how many log lines the asker knows} with its time, the file's mtime, the
# token, and further log lines: number of the request, microseconds since 1970.
PROGRAM = f"""\
import base64, hmac, json, os, socket, subprocess, threading, time
with open("{_CONFIG}") as file:
    LIFETIME = json.load(file)["token_lifetime_s"]

def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")

def token(number):
    now = int(time.time())
    claims = {{"jti": str(number), "iat": now, "exp": now + LIFETIME}}
    text = encoded(b'{{"alg":"HS256","typ":"JWT"}}') + b"." + encoded(json.dumps(claims).encode())
    return (text + b"." + encoded(hmac.digest({KEY!r}, text, "sha256"))).decode()

lines = []
def read_back():
    journal = subprocess.Popen(
        ["journalctl", "--follow", "--lines=0", "--identifier=lab-timestamps", "--output=json",
         "--output-fields=MESSAGE,_SOURCE_REALTIME_TIMESTAMP"], stdout=subprocess.PIPE)
    for line in journal.stdout:
        entry = json.loads(line)
        at = entry.get("_SOURCE_REALTIME_TIMESTAMP") or entry["__REALTIME_TIMESTAMP"]
        lines.append([int(entry["MESSAGE"].split()[-1]), int(at)])
threading.Thread(target=read_back, daemon=True).start()

log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.connect("/dev/log")
record = os.open("/var/lib/lab-timestamps", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.bind(("", {PORT}))
while True:
    data, who = door.recvfrom(2048)
    asked = json.loads(data)
    number, have = asked["number"], asked["have"]
    log.send(b"<14>lab-timestamps: handled %d" % number)
    os.pwrite(record, b"%20d" % number, 0)
    answer = {{"number": number, "have": have, "token": token(number), "now": time.time_ns(),
              "mtime": os.fstat(record).st_mtime_ns, "lines": lines[have:have + {MOST_LINES}]}}
    door.sendto(json.dumps(answer, separators=(",", ":")).encode(), who)
"""

UNIT = """\
[Unit]
Description=Dates answers, log lines, tokens and a file
[Service]
ExecStart=/usr/bin/python3 -u /usr/local/lib/lab-timestamps.py
"""


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    lifetime = duration_ns(options, "lifetime", *LIFETIME)
    if lifetime % NS_PER_S:
        raise ValueError(f"lifetime: {options['lifetime']} is no whole number of seconds")
    setup = SetupSpec(
        files=(
            SetupFile(_CONFIG, content=json.dumps({"token_lifetime_s": lifetime // NS_PER_S})),
            SetupFile("/usr/local/lib/lab-timestamps.py", content=PROGRAM),
            SetupFile("/etc/systemd/system/lab-timestamps.service", content=UNIT),
        ),
        services=(
            SetupService("lab-timestamps", Ready(ReadyKind.COMMAND, f"grep -q :{PORT:04X} /proc/net/udp")),
        ),
    )
    frozen, peer = WorkloadGuest("stamps-0", setup), WorkloadGuest("stamps-1", setup, is_peer=True)
    return (frozen, peer) if one_of(options, "servers", ("1", "2")) == "2" else (frozen,)


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    outage = Threshold("outage", None, "it has no timer; it is out for as long as the pause")
    given = re.search(r'"token_lifetime_s":\s*([0-9]+)', config.get("stamps-0", ""))
    if given is None:
        return (outage,)
    source = "RFC 7519, 4.1.4 and 4.1.6"
    if regime is Regime.JUMPED:
        return outage, Threshold("refused", None, "the guest's clock has gone on", source)
    if regime is not Regime.RESUMED:
        return (outage,)
    lifetime = int(given[1]) * NS_PER_S
    # Whole seconds take up to 1 s of the lifetime. Whether a token is issued before the repair is a race.
    because = f"tokens live for {format_duration(lifetime)}, until the clock is stepped"
    return outage, Threshold("refused", Interval(max(0, lifetime - NS_PER_S), EVER_NS), because, source)


TIMESTAMPS = ShippedWorkload(
    name="timestamps",
    about="Answers, log lines, signed tokens and a file, each dated by the guest",
    guests=_guests,
    client="timestamps",
    period_ns=200 * NS_PER_MS,
    expect=WorkloadExpect(beyond_pause_ns=NS_PER_S, refused=0),
    config=f"cat {_CONFIG} /usr/local/lib/lab-timestamps.py",
    predict=_predict,
    options=(("lifetime", "5s"), ("servers", "1")),
)
