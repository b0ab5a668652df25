"""A workload's client: a program on the host that prints a line a sample (lab.core.workload.sample).

A thread takes the lines and the time of their arrival, and nothing else: what they mean is found out after
the cycle, because Python runs one thread at a time and the controller must not wait for it in a freeze.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType

from lab.core.clock import Interval, Stamp
from lab.core.history import WorkloadSampled
from lab.core.units import NS_PER_S, format_duration
from lab.core.workload.sample import (
    LONGEST_LINE,
    GaugeReading,
    NotASample,
    Sample,
    SampleReader,
    StateLook,
    WorkloadDelivery,
    WorkloadEvent,
    WorkloadRequest,
    WorkloadStamp,
)
from lab.errors import FreezelabError, GuestError, MachineError
from lab.ports import Clock
from lab.process import runner
from lab.process.scope import Scope
from lab.threads import Worker

STARTS_NS = 30 * NS_PER_S
"""The longest time from a client's start to its first line."""

MOST_BYTES = 64 << 20
MOST_LINES = 400_000
"""The most output of a client in one cycle. What comes after it is not read before the next one, so the
client has to wait. A sample each millisecond for five minutes is 300,000 lines, of 40 MB."""

MOST_AHEAD_NS = 100_000_000
"""A client in a guest whose clock is known to no better than this against the host's measures nothing."""

MOST_PROBLEMS = 5
STOP_S = 2.0
_CHUNK = 1 << 16
_KEPT = 4 * LONGEST_LINE + 1  # bytes of more characters than that, in UTF-8
_FULL_S = 0.05
_TAIL = 4096


class _Output:
    """What a client has printed since the last cycle: chunks and when each was read."""

    def __init__(self) -> None:
        self.chunks: list[tuple[Stamp, int, bytes]] = []
        self.size, self.lines = 0, 0

    def add(self, at: Stamp, mono_minus_raw_ns: int, chunk: bytes) -> None:
        self.size += len(chunk)
        self.lines += chunk.count(b"\n")
        self.chunks.append((at, mono_minus_raw_ns, chunk))

    @property
    def is_full(self) -> bool:
        return self.size >= MOST_BYTES or self.lines >= MOST_LINES


class _LineSplitter:
    """Splits chunks into lines. A line that is too long loses what comes after its first _KEPT bytes, and is
    still too long to be a sample."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def split(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete with this chunk."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest[: max(0, _KEPT - len(self._rest))]
        return lines


class HostClient:
    """ports.WorkloadClient of a program on this host. A context manager: the program runs inside it.

    argv: the program, and its arguments. errors: the file that its standard error is written to. grace_ns:
    how long a delivery may take; 0: nothing is delivered. ahead: of a program in a guest, which argv reaches:
    measures how far the guest's REALTIME is ahead of the host's; raises GuestError. check: raises a
    FreezelabError when what the client depends on, such as the lab's network, has failed. prepare: has the
    workload's guests ready for a cycle; raises GuestError.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        errors: Path,
        clock: Clock,
        cell: str = "",
        grace_ns: int = 0,
        ahead: Callable[[], Interval] | None = None,
        check: Callable[[], None] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.name, self.program, self._cell = name, runner.quote(argv), cell
        self._argv, self._errors, self._clock = list(argv), errors, clock
        self._grace_ns, self._later = grace_ns, list[Sample]()
        self._reader, self._lines = SampleReader(), _LineSplitter()
        self._ahead, self._aheads, self._check = ahead, list[Interval](), check
        self._prepare = prepare
        self._lock, self._output = threading.Lock(), _Output()
        self._spoken, self._over = threading.Event(), threading.Event()
        self._began = clock.now().raw_ns

    def __enter__(self) -> HostClient:
        """Start the program and wait for its first line. MachineError when none comes."""
        reading, writing = os.pipe()
        self._wake, self._waker = os.pipe()
        self._scope = Scope()
        try:
            with self._errors.open("ab") as errors:
                self._process = runner.start(
                    self._argv,
                    stdout=writing,
                    stderr=errors.fileno(),
                    env=runner.environment(PYTHONUNBUFFERED="1"),
                    parent_death=signal.SIGKILL,
                    scope=self._scope,
                )
        except BaseException:
            self._scope.close()
            for handle in (reading, self._wake, self._waker):
                os.close(handle)
            raise
        finally:
            os.close(writing)
        self._thread = Worker(target=self._read, args=(reading,), name=f"workload-{self.name}", daemon=True)
        self._thread.start()
        try:
            self._await_first()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.stop(STOP_S)
            until = self._clock.now().raw_ns + round(STOP_S * NS_PER_S)
            self._scope.kill((), lambda: self._clock.now().raw_ns >= until)
        finally:
            self._scope.close()
            os.write(self._waker, b"x")
            self._thread.join()
            for handle in (self._wake, self._waker):
                os.close(handle)

    def start_cycle(self) -> None:
        """See ports.WorkloadClient. What was printed since the last cycle is kept: a message that was sent
        then may be delivered in this one. MachineError when the client has ended."""
        if self._over.is_set():
            raise MachineError(f"its client has ended: {self._how()}", where=f"workload {self.name}")
        if self._prepare is not None:
            self._prepare()
        if self._ahead is not None:
            self._aheads = [self._ahead()]
        self._began = self._clock.now().raw_ns

    def collect(self, cycle: int) -> WorkloadSampled:
        """See ports.WorkloadClient. Waits `grace_ns` for deliveries of what was acknowledged until now."""
        ended = self._clock.now().raw_ns
        if self._grace_ns and not self._over.is_set():
            self._clock.sleep_until(ended + self._grace_ns)
        with self._lock:
            output, self._output = self._output, _Output()
        lost = self._compare_clocks()
        samples, problems = self._samples(output)
        problems += lost
        samples, self._later = self._until(ended, [*self._later, *samples])
        if output.is_full:
            most = f"{MOST_LINES} lines or {MOST_BYTES >> 20} MiB"
            problems.append(f"its client has printed more than {most} in the cycle, so it had to wait")
        problems += self._dependencies()
        if self._over.is_set():
            problems.append(f"its client has ended: {self._how()}")
        hello = self._reader.hello
        return WorkloadSampled(
            cycle,
            self.name,
            self._began,
            ended,
            tuple(one for one in samples if isinstance(one, WorkloadRequest)),
            tuple(one for one in samples if isinstance(one, WorkloadDelivery)),
            tuple(one for one in samples if isinstance(one, StateLook)),
            tuple(one for one in samples if isinstance(one, WorkloadEvent)),
            tuple(problems),
            self._cell,
            hello.period_ns if hello is not None else None,
            self._reader.ahead.half_width_ns if self._reader.ahead is not None else 0,
            tuple(one for one in samples if isinstance(one, GaugeReading)),
            tuple(one for one in samples if isinstance(one, WorkloadStamp)),
        )

    def _dependencies(self) -> list[str]:
        """What has failed that the client depends on, a line."""
        try:
            if self._check is not None:
                self._check()
        except FreezelabError as error:
            return [str(error).split("\n")[0]]
        return []

    def _compare_clocks(self) -> list[str]:
        """Compare the clock of a client in a guest with the host's once more; why that failed, a line. The
        bounds are those of both ends of the cycle, for a clock that is slewed in between."""
        if self._ahead is None:
            return []
        try:
            self._aheads.append(self._ahead())
        except GuestError as error:
            return [f"its clock cannot be compared with the host's: {error.what}"]
        low, high = min(one.low_ns for one in self._aheads), max(one.high_ns for one in self._aheads)
        self._reader.ahead = Interval(low, high)
        if high - low > MOST_AHEAD_NS:
            moved = format_duration(round(high - low, -6))
            return [f"the clock of its guest is known to {moved} only; was it set?"]
        return []

    def _until(self, ended: int, samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
        """The samples of this cycle, and those of the next. Deliveries of what was acknowledged in this one
        belong to it, even if they came in the grace period."""
        if not self._grace_ns:
            return list(samples), []
        later = {one.seq for one in samples if isinstance(one, WorkloadRequest) and one.done_ns > ended}
        now, then = list[Sample](), list[Sample]()
        for one in samples:
            match one:
                case WorkloadRequest() | WorkloadDelivery():
                    is_later = one.seq in later
                case StateLook() | WorkloadStamp():
                    is_later = one.done_ns > ended
                case WorkloadEvent() | GaugeReading():
                    is_later = one.at_ns > ended
            (then if is_later else now).append(one)
        return now, then

    def _samples(self, output: _Output) -> tuple[list[Sample], list[str]]:
        """The samples of the lines that were printed, and what was wrong with the others."""
        samples: list[Sample] = []
        bad = Counter[str]()
        for at, shift, chunk in output.chunks:
            for line in self._lines.split(chunk):
                if not line.strip():
                    continue
                try:
                    samples += self._reader.read(line.decode("utf-8", "replace").strip(), at, shift)
                except NotASample as error:
                    bad[str(error)] += 1
        return samples, _problems(bad)

    def _read(self, handle: int) -> None:
        """Take what the program prints until it ends. Runs in a thread of its own."""
        try:
            while True:
                sources = [self._wake] if self._output.is_full else [handle, self._wake]
                ready, _, _ = select.select(sources, [], [], _FULL_S if len(sources) == 1 else None)
                if self._wake in ready:
                    return
                if not ready:
                    continue
                chunk = os.read(handle, _CHUNK)
                at = self._clock.now()
                shift = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - at.raw_ns
                if not chunk:
                    return
                with self._lock:
                    self._output.add(at, shift, chunk)
                if not self._spoken.is_set() and b"\n" in chunk:
                    self._spoken.set()
        finally:
            os.close(handle)
            self._over.set()
            self._spoken.set()

    def _await_first(self) -> None:
        self._spoken.wait(STARTS_NS / NS_PER_S)
        if self._over.is_set() and not self._output.size:
            raise MachineError(f"the client has ended at once: {self._how()}", where=f"workload {self.name}")
        if not self._spoken.is_set():
            what = f"the client has printed no line within {format_duration(STARTS_NS)}"
            raise MachineError(what, where=f"workload {self.name}", hint=f"it runs as: {self.program}")

    def _how(self) -> str:
        """How it has ended, with the last line of its standard error."""
        self._process.wait(STOP_S)
        status = self._process.status
        if status is None:
            how = "it closed its output"
        else:
            how = f"exit status {status}" if status >= 0 else f"ended by {runner.signal_name(-status)}"
        with self._errors.open("rb") as file:
            file.seek(max(0, self._errors.stat().st_size - _TAIL))
            lines = [
                line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()
            ]
        return f"{how}: {lines[-1][:200]}" if lines else how


def _problems(bad: Counter[str]) -> list[str]:
    """What was wrong with lines, by how often."""
    lines = [
        f"a line is no sample: {why}" if count == 1 else f"{count} lines are no samples: {why}"
        for why, count in islice(bad.items(), MOST_PROBLEMS)
    ]
    if len(bad) > MOST_PROBLEMS:
        lines.append(f"{bad.total()} lines in all are no samples")
    return lines
