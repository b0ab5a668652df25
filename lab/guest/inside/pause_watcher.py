"""The watcher's inside: collects what the guest's programs claim of its clock, and a pause's side effects.

It takes as arguments the names of the programs to ask (with commas), whether to watch for a pause's effects
(0 or 1), the busy load on each vCPU (0 to 1) and how many vCPUs there are. It writes one line, and goes on in
the background:

    R {json}        ready: where to connect to

Who connects sends one line, and gets one:

    cycle NS        C                   claims and effects are forgotten; what watches for effects begins, for
                                        at most this many nanoseconds of MONOTONIC_RAW
    claims          W {json}            what the guest's programs have claimed since
    effects         E {json}            the effects since; what watches for them ends
    stop            X                   and it ends

It ends by itself when nobody has asked for STAY_NS.
"""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable

from lab.guest.inside.background import enter_background, leave_parent
from lab.guest.inside.clock_claims import Claims, askers
from lab.guest.inside.clocks import RAW, S, gettime
from lab.guest.inside.host_streams import line_of
from lab.guest.inside.side_effects import Rtc, TimerSet, boot_minus_mono, burn, hand_on
from lab.guest.inside.unix_socket import listen, receive_request

STAY_NS = 3600 * S
# nice: the probe is at -19, the guest's own programs are at 0. A busy guest kept timers at 5 waiting for
# seconds, which is not what a pause did.
TIMERS, WATCHING, BURNING = -10, 5, 19
REPORT_S = 5.0
PATIENCE_S = 20.0


class Children:
    """The processes that watch for effects."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.all = []  # type: list[tuple[str, int, socket.socket]]

    def start(self, name: str, cpu: int, nice: int, work: "Callable[..., None]", *arguments: object) -> None:
        """Have `work(control, *arguments)` done by a process on vCPU `cpu` (any when negative)."""
        ours, control = socket.socketpair()
        number = os.fork()
        if number:
            control.close()
            self.all.append((name, number, ours))
            return
        try:
            self.listener.close()
            ours.close()
            for _, _, other in self.all:
                other.close()  # or these would not see our parent's end
            if cpu >= 0:
                os.sched_setaffinity(0, [cpu])
            try:
                os.nice(nice - os.nice(0))
            except OSError:
                pass  # not root: with the priority that we have
            work(control, *arguments)
        finally:
            os._exit(0)

    def end(self) -> "dict[str, list[object]]":
        """Their reports, by name."""
        found = {}  # type: dict[str, list[object]]
        for _, _, ours in self.all:
            try:
                ours.sendall(b"\n")
            except OSError:
                pass
        for name, number, ours in self.all:
            ours.settimeout(REPORT_S)
            report = b""
            try:
                while True:
                    data = ours.recv(65536)
                    if not data:
                        break
                    report += data
            except OSError:
                pass
            try:
                found.setdefault(name, []).extend(json.loads(report.decode() or "[]"))
            except ValueError:
                pass
            ours.close()
            try:
                os.kill(number, signal.SIGKILL)
            except OSError:
                pass
            os.waitpid(number, 0)
        self.all = []
        return found


class PauseWatch:
    def __init__(
        self, listener: socket.socket, names: "list[str]", effects: bool, load: float, most: int
    ) -> None:
        self.listener, self.names, self.effects, self.load = listener, names, effects, load
        self.ear = listener.fileno()
        self.cpus = sorted(os.sched_getaffinity(0))[: max(1, most)]
        self.children = Children(listener)
        self.claims = Claims()
        # From now on, not from the first cycle on: what they start is there already when it begins.
        self.askers = askers(self.names, self.claims)
        self.rtc = None  # type: Rtc | None
        self.found = None  # type: dict[str, object] | None
        self.apart = self.until = 0
        self.asked = gettime(RAW)

    def begin(self, most: int) -> None:
        """Forget, and watch from now on."""
        self.end()
        self.until = gettime(RAW) + most
        self.claims.rows_by_source, self.found = {}, None
        if self.effects:
            self.rtc = Rtc(gettime(RAW))
            self.askers.append(self.rtc)
            self.children.start("timers", -1, TIMERS, lambda control: TimerSet().work(control))
            ring = [os.pipe() for _ in self.cpus]
            for number, cpu in enumerate(self.cpus):
                here, there = ring[number][0], ring[(number + 1) % len(ring)][1]
                self.children.start("backward", cpu, WATCHING, hand_on, cpu, number == 0, here, there)
            for pipe in ring:
                os.close(pipe[0])
                os.close(pipe[1])
        if self.load > 0:
            for cpu in self.cpus:
                self.children.start("load", cpu, BURNING, burn, self.load)
        self.apart = boot_minus_mono()

    def end(self) -> None:
        """Keep the effects that were found, and watch no longer."""
        if self.found is None and self.children.all:
            found = self.children.end()
            if self.effects:
                self.found = {
                    "timers": found.get("timers", []),
                    "backward": found.get("backward", []),
                    "rtc": self.rtc.looks if self.rtc is not None else [],
                    "boot_minus_mono_ns": boot_minus_mono() - self.apart,
                }
        if self.rtc is not None:
            self.askers.remove(self.rtc)
            self.rtc = None

    def leave(self) -> None:
        self.end()
        for each in self.askers:
            each.close()

    def work(self) -> None:
        while True:
            now = gettime(RAW)
            if now - self.asked > STAY_NS:
                break
            if self.children.all and now >= self.until:  # there is no host any more
                self.end()
            for each in self.askers:
                if each.next <= now:
                    each.act(now)
                    now = gettime(RAW)
            latest = min(now + 60 * S, self.until) if self.children.all else now + 60 * S
            due = min([each.next for each in self.askers] + [latest])
            files = {file: each for each in self.askers for file in each.files}
            ready = select.select([self.ear, *files], [], [], max(0, due - gettime(RAW)) / 1e9)[0]
            for file in ready:
                if file == self.ear:
                    if not self.serve():
                        os._exit(0)  # all is done; to take the interpreter down takes time
                    break  # the files may be others now
                files[file].ready()
        self.leave()

    def serve(self) -> bool:
        """Take one request; whether to go on."""
        peer, asked = receive_request(self.listener, PATIENCE_S)
        if peer is None:
            return True
        answer, going = b"", True
        try:
            if asked.startswith(b"cycle "):
                self.begin(int(asked[6:]))
                answer = b"C {}\n"
            elif asked == b"claims":
                answer = line_of("W", self.claims.rows_by_source)
            elif asked == b"effects":
                self.end()
                answer = line_of("E", self.found)
            elif asked == b"stop":
                answer, going = b"X {}\n", False
                self.leave()
            self.asked = gettime(RAW)
            peer.sendall(answer)
        except OSError:
            pass
        peer.close()
        return going


def main() -> None:
    names, effects, load, most = (
        sys.argv[1].split(","),
        sys.argv[2] == "1",
        float(sys.argv[3]),
        int(sys.argv[4]),
    )
    parent = enter_background()
    os.nice(WATCHING)
    listener, path = listen()
    os.write(1, line_of("R", {"path": path}))
    leave_parent(parent)
    if path:
        PauseWatch(listener, names, effects, load, most).work()


if __name__ == "__main__":
    main()
