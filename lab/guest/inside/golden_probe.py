"""The program that waits in a golden guest when its state is taken, and so in all that begin with it: the
probe, which also makes a guest of its own of a copy, and sets its clock.

One program does all that, so neither the first reading nor a clock that is right needs another start of
Python, or the network. Until the guest is somebody, it looks for the host at the virtio-serial channel every
WAIT_NS. Beside the probe's own lines (clock_probe.py) it takes there:

    g ORDER         G ANSWER        clone_identity.py has the orders; E and the reason when one fails
    k LINE          K ANSWER        clock_setter.py has the lines
"""

import os
import signal

from lab.guest.inside.adjtimex import Adjtimex
from lab.guest.inside.clock_probe import REST_NS, ClockProbe, Output, run_probe
from lab.guest.inside.clock_setting import answer
from lab.guest.inside.clone_identity import GuestCopy
from lab.guest.inside.serial_channel import SerialChannel

WAIT_NS = 10000000


class GoldenProbe(ClockProbe):
    def __init__(self) -> None:
        ClockProbe.__init__(self)
        self.copy, self.kernel = GuestCopy(), Adjtimex()
        self.old_journal = False
        self.resting, self.rest_ns = True, WAIT_NS

    def serve(self, asked: bytes, t2: "tuple[int, ...]", over: "Output | SerialChannel") -> None:
        if asked[:1] == b"k" and over is self.serial:
            over.answer(b"K " + answer(self.kernel, asked[2:], t2[1]))
            return
        if asked[:1] != b"g" or over is self.out:
            ClockProbe.serve(self, asked, t2, over)
            return
        try:
            over.answer(b"G %s\n" % self.copy.obey(asked[2:]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            over.answer(b"E %s\n" % str(error).encode().replace(b"\n", b" "))
        else:
            if asked[2:4] == b"be":
                self.old_journal, self.rest_ns = True, REST_NS

    def attached(self) -> None:
        """The journal's start takes long under emulation: not before the host's login."""
        if self.old_journal:
            self.old_journal = False
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for it
            if not os.fork():
                try:
                    os.nice(19)  # of the probe's -19
                    self.copy.begin_journal()
                finally:
                    os._exit(0)


def main() -> None:
    run_probe(GoldenProbe)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
