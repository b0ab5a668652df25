"""tls: the guest is the TLS client of a server on the host that has a certificate made a moment ago.

A guest that wakes behind refuses it as not yet valid: TLS has no tolerance (RFC 5280, 4.1.2.5). It does so
until its clock is right, or until the certificate is older than the guest is behind. Issuers that know of
wrong clocks backdate: SPIRE by 10 s, step-ca by 1 min, Let's Encrypt by an hour.
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.core.workload.prediction import EVER_NS, Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.option_values import duration_ns
from lab.core.workload.spec import WorkloadExpect

PORT = 7009
REFUSED = "not yet valid"
BACKDATE = (0, 24 * 3600 * NS_PER_S)
"""From and to, in ns."""

# It is asked by UDP, connects to the asker by TLS, and answers with what came of it. The certificate of the
# authority comes with the question, so that the guest needs to be told nothing before.
PROGRAM = f"""\
import select, socket, ssl, time
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.bind(("", {PORT}))
trust = {{}}
door.setblocking(False)
while True:
    select.select([door], [], [])
    try:
        while True:   # the last question only: those before it have waited too long
            data, who = door.recvfrom(8192)
    except BlockingIOError:
        pass
    number, port, authority = data.split(b" ", 2)
    if authority not in trust:
        trust = {{authority: ssl.create_default_context(cadata=authority.decode())}}
    try:
        with socket.create_connection((who[0], int(port)), 2) as plain:
            with trust[authority].wrap_socket(plain, server_hostname="freezelab.test"):
                answer = ""
    except ssl.SSLCertVerificationError as error:
        answer = error.verify_message
    except OSError as error:
        answer = str(error)
    door.sendto(b"%s %d %s" % (number, time.time_ns(), answer.encode()), who)
"""

UNIT = """\
[Unit]
Description=TLS client that is asked by UDP
[Service]
ExecStart=/usr/bin/python3 -u /usr/local/lib/tls-client.py
Restart=always
"""


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    duration_ns(options, "backdate", *BACKDATE)
    setup = SetupSpec(
        files=(
            SetupFile("/usr/local/lib/tls-client.py", content=PROGRAM),
            SetupFile("/etc/systemd/system/tls-client.service", content=UNIT),
        ),
        services=(
            SetupService("tls-client", Ready(ReadyKind.COMMAND, f"grep -q :{PORT:04X} /proc/net/udp")),
        ),
    )
    return (WorkloadGuest("tls-0", setup),)


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    source = "RFC 5280, 4.1.2.5"
    if regime is Regime.JUMPED:
        return (Threshold(REFUSED, None, "the guest's clock has gone on", source),)
    if regime is not Regime.RESUMED:
        return ()
    backdate = duration_ns(options, "backdate", *BACKDATE)
    # Nothing is refused where the clock is stepped before the next connection, as a push does.
    because = f"the certificate begins {format_duration(backdate)} before it is made: until the clock is set"
    return (Threshold(REFUSED, Interval(backdate, EVER_NS), because, source),)


TLS = ShippedWorkload(
    name="tls",
    about="The guest connects by TLS to a server of the host whose certificate was made at that moment",
    guests=_guests,
    client="tls",
    period_ns=500 * NS_PER_MS,
    expect=WorkloadExpect(never=(REFUSED,)),
    config="cat /usr/local/lib/tls-client.py",
    predict=_predict,
    options=(("backdate", "0s"),),
)
