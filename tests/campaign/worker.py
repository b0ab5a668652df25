"""One case, in namespaces of its own: `python -m tests.campaign.worker FILE`, where FILE holds the case.

Started by `launch`, through unshare(1): mount, network and process namespaces. This process is the first of
its process namespace: it takes in whatever the lab leaves without a parent, and when it ends, all that is
left ends with it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from paramiko import SSHException

from lab.process.pace import PACE, paced
from tests.campaign import oracle, place, processes
from tests.campaign.cases import Case, Stage, Target
from tests.campaign.faults import Fault, NotThere
from tests.campaign.inside import Inside
from tests.campaign.processes import Watch
from tests.campaign.terminal import Terminal
from tests.campaign.wire import Cable

PROJECT = Path(__file__).resolve().parents[2]
MEMORY_MIB = 192
"""The least that the image boots with, and a golden guest is made of."""

UNSHARE = (
    "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
    "--propagation", "private",
)  # fmt: skip
END_S = {"guest-sleep": 75.0, "reboot": 110.0}
"""How long a case's command may take, beside what the fault holds it up; 45 s for other methods."""

GONE_S = 6.0
"""How long what has ended may take to be gone: the dead-man, and libvirt's last words."""


def launch(
    case: Case, work: Path, seed: int, keep: Path | None = None, *, learn: bool = False
) -> subprocess.Popen[str]:
    """Start one; its standard output is the result, as JSON. learn: keep what later cases can begin with."""
    kept = str(keep) if keep is not None else ""
    order = json.dumps(
        {
            "case": case.as_data(), "work": str(work), "seed": seed, "keep": kept, "learn": learn,
            "pace": PACE.factor,
        }
    )  # fmt: skip
    return subprocess.Popen(
        [*UNSHARE, sys.executable, "-m", "tests.campaign.worker", order],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def playbook(case: Case) -> str:
    """As YAML, which JSON is."""
    method = "in-place" if case.method == "in-place-cold" else case.method
    hold = "500ms" if method == "save-restore" else "1s"
    patch: dict[str, Any] = {"hold": hold}
    if method == "reboot":
        patch = {"command": ["true"], "deadline": "5s", "impact": "reboot"}
    guest: dict[str, Any] = {"name": "web-0", "memory": f"{MEMORY_MIB} MiB"}
    if case.target is Target.PACKETS:
        guest["network"] = {"bridge": place.BRIDGE, "address": place.GUEST}
    return json.dumps(
        {
            "name": "campaign",
            "resync": "none",
            "fleet": {"guests": [guest], "boot": "golden"},
            "cycle": {
                "method": method,
                "patch": patch,
                "settle": "0s",
                "before": "500ms",
                "watch": "1s",
                "budget": f"{case.budget_s:g}s",
            },
            "expect": {"kernel_log": "any"},
        }
    )


class Run:
    """The command, from its start to the fault and to its end."""

    def __init__(self, case: Case, watch: Watch, inside: Inside, cable: Cable | None) -> None:
        self._case, self._watch, self._inside = case, watch, inside
        path = place.ROOT / "playbook.yaml"
        path.write_text(playbook(case), encoding="utf-8")
        told, tells = os.pipe()
        hears, self._say = os.pipe()
        cold = ["--cold"] if case.method == "in-place-cold" else []
        command = [
            sys.executable, "-m", "tests.campaign.controller", str(tells), str(hears), case.step, "0", *cold,
            "--", "run", str(path),
        ]  # fmt: skip
        self.terminal = Terminal(command, place.environment(), (tells, hears))
        os.close(tells)
        os.close(hears)
        self._steps = os.fdopen(told)
        self.fault = Fault(case, watch, self.terminal, inside, cable)
        self.steps: list[str] = []

    def until_fault(self) -> str:
        """Go on to the step, and do it there. Why it was not done; "" when it was."""
        case = self._case
        for line in self._steps:
            kind, _, step = line.strip().partition(" ")
            self.steps.append(step)
            if kind == "at":
                break
        else:
            return "the step did not come"
        try:
            if case.target.is_inside:
                self._log_in()
            if case.delay_ms < 0:
                self.fault.do()
                time.sleep(0.02)  # it is at work before the step goes on
            else:
                self._go_on()
                time.sleep(case.delay_ms / 1000)
                self.fault.do()
        except (NotThere, OSError, EOFError, SSHException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            self._go_on()
            threading.Thread(target=self._listen, daemon=True).start()
        return ""

    def _listen(self) -> None:
        for line in self._steps:
            self.steps.append(line.strip().partition(" ")[2])

    def _go_on(self) -> None:
        with suppress(OSError):
            os.write(self._say, b"g")

    def _log_in(self) -> None:
        # A successor takes its predecessor's port over when it runs: its command line does not have it.
        found = [life.ssh for life in list(self._watch.lives.values()) if life.ssh is not None]
        if not found:
            raise NotThere("no guest to log in to")
        self._inside.open(*found[-1])

    def until_end(self) -> int | None:
        """Its exit code; None when it did not end, and was ended."""
        patience = paced(END_S.get(self._case.method, 45.0))
        try:
            return self.terminal.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.terminal.process.send_signal(signal.SIGUSR2)  # where do its threads stand?
            time.sleep(0.5)
            self.terminal.process.kill()
            self.terminal.process.wait()
            return None


class Keeper:
    """Keeps a name for the guest's newest disk, so that it can be looked at when the lab has removed it."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._kept = place.HOME / ".disk"
        self._inode = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            for disk in place.HOME.glob("guests/*/web-0/disk.qcow2"):
                with suppress(OSError):
                    if (inode := disk.stat().st_ino) != self._inode:
                        self._kept.unlink(missing_ok=True)
                        self._kept.hardlink_to(disk)
                        self._inode = inode

    def fault(self) -> str:
        """See oracle.disk_fault; the guest's process has ended."""
        return oracle.disk_fault(self._kept) if self._kept.exists() else ""


def perform(case: Case, work: Path, seed: int, keep: str) -> dict[str, Any]:
    """One case, to its result. keep: a folder for all there is to read of a case that went wrong."""
    place.make(work, Path(os.environ.get("FREEZELAB_CACHE", Path.home() / ".cache" / "freezelab")))
    began = time.monotonic()
    golden = _golden()
    with ExitStack() as stack:
        cable = stack.enter_context(Cable(seed)) if case.target is Target.PACKETS else None
        keeper = stack.enter_context(Keeper())
        watch = stack.enter_context(Watch())
        inside = Inside()
        stack.callback(inside.close)
        run = Run(case, watch, inside, cable)
        void = run.until_fault()
        code = run.until_end()
        removed = "phase/remove guests" in run.steps  # the kill came a little later than its step
        runs = None if removed else _wait_for_guest(watch, code, case)
        seen = oracle.Seen(
            case, code, run.terminal.text, list(watch.lives.values()), run.fault, time.monotonic(),
            watch.widest_s, runs, run.terminal.harm(), report=oracle.report(), acts=oracle.acts(),
        )  # fmt: skip
        run.fault.mend()
        ran = time.monotonic()
        seen.followed, seen.left = _afterwards(None if case.target.is_folder else code)
        seen.left += [f"the cache is without {name}" for name in golden - _golden()]
    followed = time.monotonic()
    seen.disk = keeper.fault()
    result = _result(seen, run, void, time.monotonic() - began)
    moments = (began, ran, followed, time.monotonic())
    result["parts_s"] = [round(end - begin, 1) for begin, end in itertools.pairwise(moments)]
    if keep and (result["wrong"] or void):
        _keep(Path(keep), result, seen, run)
    return result


def _golden() -> set[str]:
    return {path.parent.name for path in place.CACHE.glob("golden/[!.]*/golden.json")}


def _wait_for_guest(watch: Watch, code: int | None, case: Case) -> bool | None:
    """Whether the guest of a killed run runs again, waited for as long as it may take. None: nobody asks."""
    if code != -9 or not Stage.BEFORE <= case.stage <= Stage.AFTER or case.method == "reboot":
        return None
    end = time.monotonic() + case.budget_s + paced(oracle.LATE_S)
    while time.monotonic() < end:
        since = time.monotonic()
        time.sleep(0.3)
        if any(
            moment > since and used > processes.LEAST_NS
            for life in watch.alive
            for moment, used in life.moved[-9:]
        ):
            return True
    return False


def _afterwards(code: int | None) -> tuple[list[str], list[str]]:
    """What is wrong with the next run, and what is left when it has ended. It is one that is refused as soon
    as it has the state folder: whatever a dead run left is cleared up by then."""
    found = []
    if code not in (-9, None):
        found += [f"it left {what}" for what in _left()]
    refused = place.ROOT / "refused.yaml"
    patch = {"replace-hypervisor": "/nowhere/qemu"}
    refused.write_text(json.dumps({"name": "refused", "resync": "none", "cycle": {"patch": patch}}))
    status, said = _command("run", str(refused))
    if status != 4 or "no such emulator" not in said:
        found.append(f"the next run: exit code {status}: {_end(said)}")
    left = _left()
    if left and code in (-9, None):
        found.append(f"the next run did not clear up: {_end(said)}")
        status, said = _command("recover")
        left = _left()
        if status or left:
            found.append(f"recover: exit code {status}: {_end(said)}")
    return found, left


def _end(said: str) -> str:
    return " / ".join(line.strip() for line in said.splitlines()[-3:] if line.strip())[:300]


def _command(*words: str) -> tuple[int | None, str]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lab.cli.main", *words],
            env=place.environment(), capture_output=True, text=True, check=False, timeout=paced(60),
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, "it hangs"
    return done.returncode, done.stdout + done.stderr


def _left() -> list[str]:
    end = time.monotonic() + paced(GONE_S)
    while True:
        left = [*_processes(), *place.left_in_memory(), *place.left_in_home()]
        left += [*place.left_in_network(), *place.left_of_cgroups()]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def _processes() -> list[str]:
    mine = {1, os.getpid()}
    return [
        f"process {pid} {' '.join(words)[:100]}"
        for pid in processes.pids()
        if pid not in mine and (words := processes.words(pid))
    ]


def _result(seen: oracle.Seen, run: Run, void: str, seconds: float) -> dict[str, Any]:
    wrong = [] if void else oracle.wrong(seen)
    return {
        "case": seen.case.as_data(),
        "label": seen.case.label,
        "seconds": round(seconds, 1),
        "void": void,
        "wrong": wrong,
        "exit": seen.exit,
        "outcome": seen.report["outcome"] if seen.report else None,
        "stood_s": [round(still.length, 3) for still in oracle.stood(seen)],
        "widest_ms": round(seen.widest_s * 1000),
        "last_step": run.steps[-1] if run.steps else "",
    }


def _keep(folder: Path, result: dict[str, Any], seen: oracle.Seen, run: Run) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    (folder / "terminal.txt").write_text(seen.text)
    (folder / "steps.txt").write_text("\n".join(run.steps))
    lives = [
        {"pid": life.pid, "begun": life.begun, "seen": life.seen, "ended": life.ended,
         "generation": life.generation, "moved": life.moved}
        for life in seen.lives
    ]  # fmt: skip
    (folder / "lives.json").write_text(
        json.dumps({"fault_at": seen.fault.at, "over": seen.fault.over, "lives": lives})
    )
    (folder / "open.txt").write_text("\n".join(processes.open_files()))
    for path in (place.HOME / "stacks.txt", *place.RUNS.glob("*/*")):
        with suppress(OSError):
            shutil.copy2(path, folder / path.name)


def main(order: str) -> None:
    wanted = json.loads(order)
    PACE.factor = wanted["pace"]
    case = Case.of(wanted["case"])
    work = Path(wanted["work"])
    print(json.dumps(perform(case, work, wanted["seed"], wanted["keep"])))
    if wanted["learn"]:
        place.keep(work)


def first_process(order: str) -> int:
    """Of the namespace: takes in what has lost its parent, and has a child do the work."""
    child = os.fork()
    if not child:
        main(order)
        sys.stdout.flush()
        os._exit(0)
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(first_process(sys.argv[1]))
