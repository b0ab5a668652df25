"""What a guest's programs claim of its clock: the part of the watcher that asks them. Nothing here waits."""

import os
import subprocess

from lab.guest.inside.adjtimex import STA_UNSYNC, TIME_ERROR, Adjtimex
from lab.guest.inside.asker import Asker, look
from lab.guest.inside.clocks import MS, RAW, S, gettime

MOST_ROWS = 4000  # of one source; beyond it every second one goes
MOST_TEXT = 160
ADJTIMEX_NS = 250 * MS
CHRONYC_NS = 1 * S
PROGRAM_NS = 5 * S
MISSING_NS = 60 * S
PATIENCE_NS = 5 * S
NOT_SYNCHRONISED = "Not synchronised"  # chronyc's leap status


class Claims:
    """What the guest's programs claim, source by source, in order."""

    def __init__(self) -> None:
        self.rows_by_source = {}  # type: dict[str, list[list[object]]]

    def add(
        self,
        source: str,
        begun: "tuple[int, int, int, int]",
        synced: "bool | None",
        bound: "int | None",
        text: str,
    ) -> None:
        """One claim, made since the look `begun`."""
        ended = look()
        rows = self.rows_by_source.setdefault(source, [])
        low, high = min(begun[2], ended[2]), max(begun[3], ended[3])
        rows.append([begun[0], ended[1], low, high, synced, bound, text[:MOST_TEXT]])
        if len(rows) >= MOST_ROWS:
            del rows[1::2]

    def ended(self, source: str, begun: "tuple[int, int, int, int]", text: str) -> None:
        """The source has ended or does not answer: its last claim no longer stands."""
        rows = self.rows_by_source.get(source)
        if rows and rows[-1][4:6] != [None, None]:
            self.add(source, begun, None, None, text)


class KernelStatus(Asker):
    """adjtimex(2) with modes 0: the kernel's status, maximum error and estimated error. Raises as Adjtimex
    does."""

    def __init__(self, claims: Claims, now: int) -> None:
        Asker.__init__(self, now)
        self.claims, self.kernel = claims, Adjtimex()

    def act(self, now: int) -> None:
        self.next = now + ADJTIMEX_NS
        begun = look()
        state = self.kernel.read()
        if state < 0:
            return
        timex = self.kernel.timex
        synced = state != TIME_ERROR and not timex.status & STA_UNSYNC
        text = "maxerror %d us, esterror %d us" % (timex.maxerror, timex.esterror)
        self.claims.add("adjtimex", begun, synced, timex.maxerror * 1000, text)


class ClaimProcess:
    """A program whose output is read without waiting for it."""

    def __init__(self, words: "list[str]", spoken_to: bool) -> None:
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if spoken_to else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        self.output = self.process.stdout.fileno()
        os.set_blocking(self.output, False)
        self.received = b""

    def write(self, text: bytes) -> bool:
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            self.process.stdin.write(text)
        except OSError:
            return False
        return True

    def read(self) -> bool:
        """Read what is there; whether there may be more."""
        try:
            data = os.read(self.output, 65536)
        except OSError:
            return True
        self.received += data
        return bool(data)

    def end(self) -> int:
        """Its exit status; it is killed if it goes on."""
        for pipe in self.process.stdin, self.process.stdout:
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait()


class Chronyc(Asker):
    """One chronyc that is asked again and again: to start one takes the guest longer than all it has to say.

    tracking: chronyc(1) bounds the clock's error by |system time offset| + root dispersion + root delay / 2.
    sources: synchronised when one of them is selected ("*"); what it says of that one is of its last
    measurement, not of the clock now, so it names no bound."""

    TRACKING, SOURCES = "chronyc tracking", "chronyc sources"

    def __init__(self, claims: Claims, now: int) -> None:
        Asker.__init__(self, now)
        self.claims = claims
        self.child = None  # type: ClaimProcess | None
        self.asked = None  # type: tuple[int, int, int, int] | None

    def act(self, now: int) -> None:
        self.next = now + CHRONYC_NS
        if self.asked is not None:
            if now - self.asked[0] < PATIENCE_NS:
                return
            self.lost("chronyc does not answer")
        if self.child is None:
            try:
                self.child = ClaimProcess(["chronyc", "-c", "-n"], True)
            except OSError:
                self.next = now + MISSING_NS
                return
            self.files = [self.child.output]
        self.asked = look()
        if not self.child.write(b"sources\ntracking\n"):
            self.lost("chronyc ended")

    def ready(self) -> None:
        if self.child is None:
            return
        more = self.child.read()
        *lines, self.child.received = self.child.received.split(b"\n")
        texts = [line.decode("ascii", "replace") for line in lines]
        for number, text in enumerate(texts):
            if text.startswith("506 "):
                self.lost("chronyd does not answer")
                return
            if text.count(",") >= 13 and self.asked is not None:  # tracking is asked last
                self.sources(texts[:number])
                self.tracking(text)
                self.asked = None
                return
        self.child.received = b"".join(line + b"\n" for line in lines) + self.child.received
        if not more:
            self.lost("chronyc ended")

    def sources(self, texts: "list[str]") -> None:
        rows = [text.split(",") for text in texts if text.count(",") >= 9]
        if self.asked is None or not rows:
            return
        for row in rows:
            if row[1] == "*":
                detail = "%s measured %s s ago: %s s +/- %s s" % (row[2], row[6], row[7], row[9])
                self.claims.add(self.SOURCES, self.asked, True, None, detail)
                return
        detail = "none of %d selected" % len(rows)
        self.claims.add(self.SOURCES, self.asked, False, None, detail)

    def tracking(self, text: str) -> None:
        fields = text.split(",")
        try:
            offset, delay, dispersion = float(fields[4]), float(fields[10]), float(fields[11])
        except ValueError:
            return
        if self.asked is None:
            return
        bound = int((abs(offset) + dispersion + delay / 2) * 1e9) + 1
        synced = fields[13] != NOT_SYNCHRONISED and int(fields[0] or "0", 16) != 0
        numbers = offset, dispersion, delay
        detail = fields[13] + ", offset %.6f s, dispersion %.6f s, delay %.6f s" % numbers
        self.claims.add(self.TRACKING, self.asked, synced, bound, detail)

    def lost(self, why: str) -> None:
        now = self.asked or look()
        self.claims.ended(self.SOURCES, now, why)
        self.claims.ended(self.TRACKING, now, why)
        self.close()

    def close(self) -> None:
        if self.child is not None:
            self.child.end()
        self.child, self.asked, self.files = None, None, []


class Program(Asker):
    """A program that is run now and then. `understand`: (synced, bound in ns, text) of its output, None or
    ValueError or KeyError when it says nothing of the kind."""

    def __init__(self, claims: Claims, now: int, source: str, words: "list[str]") -> None:
        Asker.__init__(self, now)
        self.claims, self.source, self.words = claims, source, words
        self.child = None  # type: ClaimProcess | None
        self.asked = look()

    def understand(self, text: str) -> "tuple[bool | None, int | None, str] | None":
        raise NotImplementedError

    def act(self, now: int) -> None:
        self.next = now + PROGRAM_NS
        if self.child is not None:  # since the last time
            self.over("it does not answer")
        self.asked = look()
        try:
            self.child = ClaimProcess(self.words, False)
        except OSError:
            self.next = now + MISSING_NS
            return
        self.files = [self.child.output]

    def ready(self) -> None:
        if self.child is not None and not self.child.read():
            self.over("it failed")

    def over(self, why: str) -> None:
        if self.child is None:
            return
        text = self.child.received.decode("utf-8", "replace")
        self.close()
        try:
            claim = self.understand(text)
        except (ValueError, KeyError):
            claim = None
        if claim is None:
            self.claims.ended(self.source, self.asked, why)
        else:
            self.claims.add(self.source, self.asked, *claim)

    def close(self) -> None:
        if self.child is not None:
            self.child.end()
        self.child, self.files = None, []


class Synchronized(Program):
    """timedatectl's "System clock synchronized": the kernel's maximum error is below 16 s (systemd,
    src/basic/time-util or timedate: ntp_synced). It names no bound."""

    def __init__(self, claims: Claims, now: int) -> None:
        words = ["timedatectl", "show", "-p", "NTPSynchronized"]
        Program.__init__(self, claims, now, "timedatectl", words)

    def understand(self, text: str) -> "tuple[bool | None, int | None, str] | None":
        value = text.strip().partition("=")[2]
        return (value == "yes", None, text.strip()) if value in ("yes", "no") else None


class Timesync(Program):
    """timedatectl show-timesync: what systemd-timesyncd made of its last packet. It names no bound."""

    def __init__(self, claims: Claims, now: int) -> None:
        words = ["timedatectl", "show-timesync"]
        Program.__init__(self, claims, now, "timedatectl timesync", words)

    def understand(self, text: str) -> "tuple[bool | None, int | None, str] | None":
        values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        message = values.get("NTPMessage", "").strip("{} ")
        parts = dict(part.strip().split("=", 1) for part in message.split(",") if "=" in part)
        if not values:
            return None
        synced = int(parts.get("PacketCount") or "0") > 0 and parts.get("Leap") != "3"
        detail = "poll %s, packets %s" % (values.get("PollIntervalUSec", "?"), parts.get("PacketCount", "0"))
        return synced, None, detail


class Ntpq(Program):
    """ntpq -c rv: the system variables, in milliseconds. The clock's error is at most |offset| + root
    distance, which is root dispersion + root delay / 2 (RFC 5905, appendix A.5.5.2). leap 3 (in bits: 11):
    not synchronised."""

    def __init__(self, claims: Claims, now: int) -> None:
        Program.__init__(self, claims, now, "ntpq", ["ntpq", "-n", "-c", "rv"])

    def understand(self, text: str) -> "tuple[bool | None, int | None, str] | None":
        parts = [part.strip() for part in text.replace("\n", ",").split(",")]
        values = dict(part.split("=", 1) for part in parts if "=" in part)
        offset, delay = float(values["offset"]), float(values["rootdelay"])
        dispersion = float(values["rootdisp"])
        synced = values["leap"] not in ("3", "11") and int(values["stratum"]) < 16
        bound = int((abs(offset) + dispersion + delay / 2) * 1e6) + 1
        detail = "leap %s, stratum %s, offset %s ms, rootdisp %s ms, rootdelay %s ms" % (
            values["leap"], values["stratum"], values["offset"], values["rootdisp"], values["rootdelay"],
        )  # fmt: skip
        return synced, bound, detail


def askers(names: "list[str]", claims: Claims) -> "list[Asker]":
    """Those that this guest has; `names` says which daemon's. They begin one after the other."""
    now, found = gettime(RAW), []  # type: tuple[int, list[Asker]]
    try:
        found.append(KernelStatus(claims, now))
    except (ImportError, OSError, AttributeError):
        pass
    if "chronyc" in names:
        found.append(Chronyc(claims, now + 100 * MS))
    if "timesync" in names:
        found.append(Timesync(claims, now + 2 * S))
    if "ntpq" in names:
        found.append(Ntpq(claims, now + 500 * MS))
    if "timedatectl" in names:
        found.append(Synchronized(claims, now + 1 * S))
    return found
