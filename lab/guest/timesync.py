"""Time-sync set-ups inside a guest: each is a ports.Resync."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lab.core.mechanism import ResyncMechanism
from lab.core.timesync.setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import FreezelabError, GuestError
from lab.guest.ssh import SSH
from lab.ports import Call

AGENT_S = 20.0
WAITSYNC = "chronyc waitsync 60 0.05 0 0.5"  # 60 tries each 0.5 s, until within 50 ms

CHRONY_CONF = """\
# written by freezelab
server {server} port {port} minpoll 0 maxpoll 0 iburst
makestep 1.0 -1
driftfile /run/chrony/drift
"""


class NoResync:
    """Nothing repairs the guest's clock."""

    def resumed(self) -> None:
        return None

    def outcome(self) -> str:
        return ""

    def setup(self) -> Setup:
        return Setup(ResyncMechanism.NONE)

    def remove(self) -> None:
        return None


class AgentResync:
    """The host sets the guest's clock through its agent, in a thread of its own.

    set_time: does it, and gives back when it was called and when it returned.
    """

    def __init__(self, set_time: Callable[[], Call]) -> None:
        self._set_time = set_time
        self._thread: threading.Thread | None = None
        self._said = ""

    def resumed(self) -> None:
        self._said = "the agent did not answer"
        self._thread = threading.Thread(target=self._act, name="agent-resync", daemon=True)
        self._thread.start()

    def _act(self) -> None:
        try:
            call = self._set_time()
            took = (call.returned.raw_ns - call.called.raw_ns) / NS_PER_MS
            self._said = f"the agent set the time in {took:.0f} ms"
        except FreezelabError as error:
            self._said = f"the agent failed: {error.what}"

    def setup(self) -> Setup:
        return Setup(ResyncMechanism.AGENT)

    def remove(self) -> None:
        self.outcome()

    def outcome(self) -> str:
        if self._thread is not None:
            self._thread.join(AGENT_S)
        return self._said


class ChronyResync:
    """chronyd in the guest against the host's NTP server. ssh: the connection to use."""

    def __init__(self, ssh: Callable[[], SSH], server: str, port: int) -> None:
        self._ssh, self._server, self._port = ssh, server, port

    def prepare(self) -> None:
        """Configure and start chronyd, and wait until it has set the clock. GuestError otherwise."""
        ssh = self._ssh()
        conf = CHRONY_CONF.format(server=self._server, port=self._port).encode()
        ssh.check("mkdir -p /etc/chrony && cat > /etc/chrony/chrony.conf", stdin=conf)
        ssh.check("systemctl restart chrony.service")
        result = ssh.run(WAITSYNC, timeout_s=60)
        if result.status != 0:
            last = result.out.strip().splitlines()[-1:] or [result.err.strip()]
            raise GuestError(f"chrony did not synchronise: {last[0]}", where=f"guest {ssh.address.guest}")

    def resumed(self) -> None:
        return None

    def setup(self) -> Setup:
        return Setup(ResyncMechanism.CHRONY, config=self._ssh().check("cat /etc/chrony/chrony.conf"))

    def remove(self) -> None:
        self._ssh().check("systemctl stop chrony.service")

    def outcome(self) -> str:
        """chronyd's own claim: |system time offset| + root dispersion + root delay / 2 (chronyc(1))."""
        result = self._ssh().run("chronyc -c -n tracking", timeout_s=20)
        fields = result.out.strip().split(",")
        if result.status != 0 or len(fields) < 14:
            return f"chronyd does not answer: {result.err.strip()}"
        offset, delay, dispersion = abs(float(fields[4])), float(fields[10]), float(fields[11])
        claim_ms = (offset + dispersion + delay / 2) * NS_PER_S / NS_PER_MS
        return f"chronyd claims ± {claim_ms:.2f} ms"
