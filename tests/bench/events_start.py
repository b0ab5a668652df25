"""How soon `freezelab events serve` answers: from the start of its process to the first answer to a client.

    .venv/bin/python -m tests.bench.events_start [--times 20] [--command FREEZELAB]

A command, no test: what it tells is about this machine at this moment. Each time another process serves one
guest on a free port; a client connects as soon as it can, and asks for events. The CPU time until then, in
steps of 10 ms, depends less on what else the machine does. Beside it, by turns, the start of an interpreter
that does nothing. --command: an installed freezelab, by default this tree's.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

import psutil

from tests.bench.pairs import table

ROOT = Path(__file__).parents[2]
HERE = [sys.executable, "-c", "from lab.cli.entry import main; main()"]
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
LOOK_S = 0.001
END_S = 30.0


def first_answer(command: list[str], home: str) -> tuple[float, float]:
    """Milliseconds until the service has answered, and its CPU time until then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"FREEZELAB_HOME": home, "PYTHONPATH": str(ROOT)}
    argv = [*command, "events", "serve", "--listen", f"127.0.0.1:{port}=web-0"]
    began = time.monotonic()
    with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                client = HTTPConnection("127.0.0.1", port, timeout=END_S)
                try:
                    client.connect()
                    break
                except ConnectionRefusedError:
                    client.close()
                    if process.poll() is not None or time.monotonic() > began + END_S:
                        raise SystemExit("the service does not start") from None
                    time.sleep(LOOK_S)
            client.request("GET", EVENTS, headers={"Metadata": "true"})
            answer = client.getresponse()
            took = time.monotonic() - began
            used = psutil.Process(process.pid).cpu_times()
            if answer.status != 200 or not answer.read().startswith(b'{"DocumentIncarnation":'):
                raise SystemExit(f"the answer is {answer.status}")
            client.close()
        finally:
            process.send_signal(signal.SIGTERM)
    return took * 1e3, (used.user + used.system) * 1e3


def bare() -> float:
    """Milliseconds for an interpreter that does nothing."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.monotonic() - began) * 1e3


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--command")
    asked = parser.parse_args()
    command = [asked.command] if asked.command else HERE
    before = os.getloadavg()[0]
    measured: dict[str, list[float]] = {"python": [], "events serve": []}
    cpu: list[float] = []
    with tempfile.TemporaryDirectory(prefix="fl-") as home:
        first_answer(command, home)  # not counted: the disk, compiled modules
        for _ in range(asked.times):
            measured["python"].append(bare())
            took, used = first_answer(command, home)
            measured["events serve"].append(took)
            cpu.append(used)
    print(table("start, ms", measured))
    print(table("its CPU time, ms", {"events serve": cpu}))
    print(f"load {before:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} CPUs, ", end="")
    print(f"Python {platform.python_version()}")


if __name__ == "__main__":
    main()
