"""The pytest plugin: guests for a test session, and freezes of them in tests.

    # pyproject.toml                          # test_client.py
    [tool.pytest.ini_options]                 def test_reconnects(freezelab_guests, freeze):
    freezelab_playbook = "lab.yaml"               with freeze("db-0", for_="10s") as frozen:
                                                      ...                # db-0 is frozen
                                                  assert frozen.pause.value_ns > 9e9

`@pytest.mark.freezelab(playbook="x.yaml")` runs a whole playbook as a test; what it found is the text of a
failure. docs/pytest.md describes all of it. pytest loads this module in every session of an environment with
freezelab, so it imports the lab only when a test asks for it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lab.core.plan import CycleSpec, Plan
    from lab.record.model import CycleRecord, Measure
    from lab.record.run import Run
    from lab.session.guest_session import FreezeByHand, GuestSession

_MARK = ("playbook", "connect")
_RUN_NS = 3600 * 10**9
_GRACE_NS = 60 * 10**9
_RECORD_BYTES = 1 << 28
_KEPT = pytest.StashKey[list[str]]()
_WORKER_KEPT = "freezelab_kept"
_SPARE_NS = 10_000_000_000
"""How much longer the budget is than a freeze at least, so that the test's own code ends the freeze."""
_LONGEST_NS = 59 * 60 * 10**9
"""The longest freeze: a budget is 1 h at most, as in playbooks."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("freezelab", "guests that tests can freeze")
    group.addoption(
        "--freezelab-keep",
        action="store_true",
        help="leave the guests running at the end, and print how to reach and how to remove them",
    )
    parser.addini("freezelab_playbook", "playbook whose guests the tests get (a path, from the ini file)")
    parser.addini("freezelab_guests", "names of plain guests that the tests get", type="args")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "freezelab(playbook, connect=None): run this playbook before the test, which fails with what it "
        "found; connect: the libvirt URI for domains of your own",
    )


class Guest:
    """A guest of the session. name: its host name. host, port, user, key (a file), host_key: for SSH."""

    def __init__(self, session: GuestSession, name: str) -> None:
        address = session.address(name)
        self._session, self.name = session, name
        self.host, self.port, self.user = address.host, address.port, address.user
        self.key, self.host_key = address.key, address.host_key

    def run(self, command: str, timeout_s: float = 60.0, stdin: bytes = b"") -> str:
        """The standard output of a shell command in the guest, as root. GuestError when it fails, ends with
        another status than 0, or takes longer."""
        from lab.errors import GuestError

        try:
            return self._session.ssh(self.name).check(command, timeout_s, stdin)
        except GuestError as error:
            raise error.with_traceback(None) from None  # a failure that is not caught shows the test's lines

    def put(self, source: Path | str | bytes, path: str, mode: str = "0644") -> None:
        """Write a file in the guest, from a path of this host or from bytes. GuestError when that fails."""
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        where, folder = shlex.quote(path), shlex.quote(str(Path(path).parent))
        self.run(f"mkdir -p {folder} && cat > {where} && chmod {shlex.quote(mode)} {where}", 60, content)

    def endpoint(self, port: int) -> tuple[str, int]:
        """The address and port of this host at which a TCP port of the guest answers. On QEMU's user-mode
        network QEMU forwards it, and an in-place freeze ends that: ask again afterwards."""
        return self._session.endpoint(self.name, port)


class MeasuredFreeze:
    """One freeze. All figures wait for the end of the watch, in which the guest's clock is followed. They
    fail the test while the guests are frozen."""

    def __init__(self, by_hand: FreezeByHand, guests: tuple[str, ...]) -> None:
        self._by_hand, self.guests = by_hand, guests
        self._run: Run | None = None

    @property
    def folder(self) -> Path:
        """The run's folder, with its history and, after the watch, its run.json."""
        return self._by_hand.folder

    def resume(self) -> None:
        """End the freeze now; the guest runs when this returns."""
        self._by_hand.resume()

    @property
    def run(self) -> Run:
        """The judged run."""
        if self._by_hand.is_on:
            text = "the guests are frozen; figures are there after the block, or after resume()"
            raise pytest.fail.Exception(text)
        if self._run is None:
            with _as_failure():
                self._run, _ = self._by_hand.judged()
        if self._run is None:
            raise AssertionError(f"nothing was judged: {self.folder}")
        return self._run

    def cycle(self, guest: str | None = None) -> CycleRecord:
        """The record of the freeze of one guest, the first by default."""
        name = guest or self.guests[0]
        for record in self.run.guests:
            if record.name == name and record.cycles:
                return record.cycles[-1]
        raise AssertionError(f"guest {name} was not measured: {self.folder}")

    @property
    def pause(self) -> Measure:
        """The pause of the first guest: value_ns, low_ns and high_ns."""
        measured = self.cycle().pause
        if measured is None:
            raise AssertionError(f"the pause could not be measured: {self.folder}")
        return measured

    def in_time_after(self, guest: str | None = None) -> float | None:
        """How many seconds after the resume the guest's clock was in time, at the latest; None when it was
        not until the end of the watch."""
        resync = self.cycle(guest).resync
        return None if resync is None or resync.time_ns is None else resync.time_ns / 1e9

    def check(self) -> None:
        """AssertionError, with the findings, unless every check of the playbook passed."""
        if self.run.outcome.value != "passed":
            raise AssertionError(_text([asdict(one) for one in self.run.findings], str(self.folder)))


def _text(findings: Iterable[Mapping[str, Any]], run: str) -> str:
    """What did not pass, a line each, and the command that shows the whole report."""
    lines = [
        f"{one['outcome']}: {one['guest'] or 'run'}: {one['metric']}: expected {one['expectation']}, "
        f"measured {one['measured']}{': ' if one['why'] else ''}{one['why']}"
        for one in findings
        if one["outcome"] != "passed"
    ]
    return "\n".join([*lines, f"freezelab report {run}"])


def _plan(config: pytest.Config) -> Plan:
    from lab.core.patch import HoldPatch
    from lab.core.plan import CycleSpec, Expectations, FreezeMethod, GuestSpec, Plan, ResyncMechanism
    from lab.errors import UsageError
    from lab.playbook import load, resolve
    from lab.session.paths import PLAYBOOKS

    name, guests = str(config.getini("freezelab_playbook")), list(config.getini("freezelab_guests"))
    if name and guests:
        raise UsageError("freezelab_playbook and freezelab_guests: give one of the two")
    if name:
        beside = (config.inipath or config.rootpath / "x").parent / name
        plan = load(beside if beside.exists() else resolve(name, [PLAYBOOKS]))
        if plan.cells:
            raise UsageError(f"{name} is a matrix; the tests' guests need a playbook without one")
        if own := next((spec.domain for spec in plan.guests if spec.is_own), ""):
            raise UsageError(
                f"{name}: domain {own} is your own; the tests' guests are those that the lab starts",
                hint="@pytest.mark.freezelab(playbook=…, connect=URI) runs a playbook with it",
            )
        return plan
    specs = tuple(GuestSpec(each) for each in dict.fromkeys(guests or ["web-0"]))
    cycle = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(0))
    return Plan("pytest", "", "", specs, ResyncMechanism.AGENT, cycle, Expectations(), golden=True)


@pytest.fixture(scope="session")
def freezelab_session(request: pytest.FixtureRequest) -> Iterator[GuestSession]:
    """The session's guests, as the plugin has them."""
    from lab.ports import NullView
    from lab.session import paths
    from lab.session.guest_session import GuestSession

    config = request.config
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")  # each worker has guests of its own
    home = paths.made(paths.home() / "pytest" / worker)
    view = NullView()
    kept = bool(config.getoption("--freezelab-keep"))
    with _as_failure():
        session = GuestSession(_plan(config), home, view, view.progress, kept=kept).__enter__()
    config.pluginmanager.register(_Interrupt(session))

    def end() -> None:
        session.call_off()
        session.__exit__(None, None, None)

    config.add_cleanup(end)  # pytest ends no more fixtures after a second Ctrl-C. To end twice does nothing
    try:
        yield session
    finally:
        try:
            if kept:
                down = f"FREEZELAB_HOME={shlex.quote(str(home))} freezelab down --all"
                lines = [*(guest.login for guest in session.leave_running()), down]
                config.stash[_KEPT] = lines
                getattr(config, "workeroutput", {})[_WORKER_KEPT] = lines
        finally:
            session.__exit__(None, None, None)


class _Interrupt:
    """A plugin that calls the present freeze off at Ctrl-C, so that nobody waits for its watch."""

    def __init__(self, session: GuestSession) -> None:
        self._session = session

    def pytest_keyboard_interrupt(self) -> None:
        self._session.call_off()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of pytest-xdist reports of its guests that were kept."""
    lines = getattr(node, "workeroutput", {}).get(_WORKER_KEPT, [])
    node.config.stash[_KEPT] = [*node.config.stash.get(_KEPT, []), *lines]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How to reach and to remove the guests that were kept."""
    if lines := config.stash.get(_KEPT, []):
        terminalreporter.section("freezelab: guests that were kept")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def freezelab_guests(freezelab_session: GuestSession) -> dict[str, Guest]:
    """The session's guests by name: running, in time, and removed at the end of the session."""
    return {name: Guest(freezelab_session, name) for name in freezelab_session.names}


class FreezeContext(AbstractContextManager[MeasuredFreeze]):
    """What freeze() returns: a context in which the guests are frozen. call: the call, as text."""

    def __init__(self, prepare: Callable[[], FreezeByHand], guests: tuple[str, ...], call: str) -> None:
        self._prepare, self._guests, self._call = prepare, guests, call
        self._by_hand: FreezeByHand | None = None
        self._entered = False

    def __enter__(self) -> MeasuredFreeze:
        self._entered = True
        with _as_failure():
            self._by_hand = self._prepare()
            self._by_hand.__enter__()
        return MeasuredFreeze(self._by_hand, self._guests)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._by_hand is None:
            return
        if error is not None:
            self._by_hand.__exit__(kind, error, trace)
            return
        with _as_failure():
            self._by_hand.__exit__(None, None, None)

    def close(self) -> None:
        """Wait until its guests run and the watch is over."""
        if self._by_hand is not None:
            self._by_hand.close()

    def check_entered(self) -> None:
        """Fail when it was never entered."""
        if not self._entered:
            text = f"{self._call} froze nothing: it has to be the context of a with statement"
            raise pytest.fail.Exception(text, pytrace=False)


@pytest.fixture
def freeze(
    request: pytest.FixtureRequest, freezelab_session: GuestSession
) -> Iterator[Callable[..., FreezeContext]]:
    """freeze(*guests, for_, method=None, watch=None): a context in which the guests are frozen. It ends
    when `for_` is over, or earlier by frozen.resume(), and at once when the block raises. The guests run at
    the end of the test, whatever it did."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40] or "test"
    asked: list[FreezeContext] = []

    def frozen(*guests: str, for_: str, method: str | None = None, watch: str | None = None) -> FreezeContext:
        wanted = guests or freezelab_session.names

        def prepare() -> FreezeByHand:
            cycle, length_ns = _cycle(freezelab_session.plan.cycle, for_, method, watch)
            return freezelab_session.freeze(wanted, cycle, length_ns, name)

        call = ", ".join([*map(repr, guests), f"for_={for_!r}"])
        asked.append(FreezeContext(prepare, tuple(wanted), f"freeze({call})"))
        return asked[-1]

    yield frozen
    for each in asked:
        each.close()
    for each in asked:
        each.check_entered()


def _cycle(cycle: CycleSpec, for_: str, method: str | None, watch: str | None) -> tuple[CycleSpec, int]:
    """The cycle of a freeze, and how long its guests are frozen, in ns. UsageError when one of the texts is
    wrong."""
    from lab.core.plan import FreezeMethod
    from lab.core.units import format_duration, parse_duration
    from lab.errors import UsageError

    known = [each.value for each in FreezeMethod]
    if method and method not in known:
        raise UsageError(f"there is no method {method!r}", hint=f"known: {', '.join(known)}")
    try:
        length_ns = parse_duration(str(for_))
        watch_ns = parse_duration(str(watch)) if watch else cycle.watch_ns
    except ValueError as error:
        raise UsageError(str(error)) from None
    if length_ns > _LONGEST_NS:
        raise UsageError(f"for_={for_!r}: a freeze is at most {format_duration(_LONGEST_NS)} long")
    chosen = replace(
        cycle,
        method=FreezeMethod(method) if method else cycle.method,
        budget_ns=max(cycle.budget_ns, length_ns + _SPARE_NS),
        watch_ns=watch_ns,
        settle_ns=0,
        announce=None,
    )
    return chosen, length_ns


@contextmanager
def _as_failure() -> Iterator[None]:
    """Expected failures of the lab fail the test with their one or two lines."""
    from lab.errors import FreezelabError

    try:
        yield
    except FreezelabError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Run the playbooks of the test's marks, each in a process of its own: a process can open libvirt's
    embedded driver in one state folder only, and the session's guests are in another."""
    for mark in item.iter_markers("freezelab"):
        named: dict[str, Any] = {**dict(zip(_MARK, mark.args, strict=False)), **mark.kwargs}
        if wrong := [name for name in (*named, *mark.args[len(_MARK) :]) if name not in _MARK]:
            pytest.fail(f"the mark freezelab has playbook and connect, not {wrong[0]!r}", pytrace=False)
        if not named.get("playbook"):
            pytest.fail(
                'the mark freezelab needs a playbook: freezelab(playbook="nightly.yaml")', pytrace=False
            )
        _run_playbook(item, **named)


def _run_playbook(item: pytest.Item, playbook: str, connect: str | None = None) -> None:
    from lab.process.clock import HostClock
    from lab.process.runner import Stop, execute

    beside, clock = item.path.parent / playbook, HostClock()
    command = [sys.executable, "-m", "lab.cli.main", "run", "--quiet", "--json", "--wait"]
    if connect:
        command += ["--connect", connect]
    # Ctrl-C and a killed pytest end it like a person does: its guests are resumed and removed.
    stop = Stop(grace_ns=_GRACE_NS, interrupted_too=True, parent_death=signal.SIGTERM)
    until = clock.now().raw_ns + _RUN_NS
    which = str(beside if beside.exists() else playbook)
    done = execute([*command, which], clock, stop_at_raw_ns=until, stop=stop, output_max=_RECORD_BYTES)
    if not done.stdout.startswith("{"):  # it ended before there was anything to judge
        why = done.stderr.strip().removeprefix("freezelab: ") or done.why
        pytest.fail(f"playbook {playbook}: {why}", pytrace=False)
    record = json.loads(done.stdout)
    if record["outcome"] != "passed":
        text = _text(record["findings"], record["id"])
        pytest.fail(f"playbook {playbook}: {record['outcome']}\n{text}", pytrace=False)
