"""What another user of a host, or of the controller's machine, can do to a run over hosts: nothing.

`attempts()` runs this file as nobody, in the namespaces of a host or of the controller. It prints what that
user could do, a line each: read a file, reach a socket, steer a Dask scheduler or worker, get an answer of
the metadata service, signal a process, or read its memory.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

NOBODY = "65534"
PATIENCE_S = 3.0
LISTENS = "0A"  # net/tcp_states.h
PATHS = (
    "/metadata/scheduledevents?api-version=2020-07-01",
    "/",
    "/health",
    "/metrics",
    "/info/main/workers.html",
)
SECRET = re.compile(r"-----BEGIN|(?<![0-9a-f-])[0-9a-f]{32}(?![0-9a-f-])")
"""A key or certificate, or a secret of 128 bits."""


def closed(state: Path) -> list[Path]:
    """The folders of a state folder in which nothing may be read: records with consoles, guests' disks, RAM,
    sockets."""
    return [state / name for name in ("runs", "guests", "kept", "ram", "agents", "doors", "libvirt/run")]


def attempts(
    namespaces: Sequence[str], folders: Sequence[Path], processes: Sequence[int] | None = None
) -> list[str]:
    """What nobody could do, after a line that begins with "tried". namespaces: the words of a command that
    enters them. folders: in which nothing may be read. processes: their numbers there; None for all."""
    words = [str(one) for one in folders] + [f"pid={one}" for one in processes or ()]
    as_nobody = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]
    done = subprocess.run(
        [*namespaces, *as_nobody, sys.executable, "-P", str(Path(__file__)), *words],
        cwd="/", env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tried "), done.stdout
    return done.stdout.splitlines()


def readable(folder: str) -> Iterator[str]:
    """The files in a folder that can be read, and the sockets and pipes that can be opened."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with suppress(OSError):
                kind = path.lstat().st_mode
                if stat.S_ISSOCK(kind):
                    with closing(socket.socket(socket.AF_UNIX)) as made:
                        made.settimeout(PATIENCE_S)
                        made.connect(str(path))
                    yield f"reaches the socket {path}"
                elif stat.S_ISREG(kind):
                    path.open("rb").close()
                    yield f"reads {path}"
                elif stat.S_ISFIFO(kind):
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    yield f"writes to {path}"


def listening() -> list[int]:
    """The ports of TCP at which somebody listens here, but for sshd's."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS:
                found.add(int(words[1].rpartition(":")[2], 16))
    return sorted(found - {22})


def answered(port: int) -> Iterator[str]:
    """What is told by HTTP to whoever asks: by the metadata service, to a secret that was guessed or to none,
    and by Dask, whose pages there are none of."""
    for begin in (b"", b"0" * 32):
        for path in PATHS:
            request = f"GET {path} HTTP/1.0\r\nMetadata: true\r\n\r\n".encode()
            with (
                suppress(OSError),
                closing(socket.create_connection(("127.0.0.1", port), PATIENCE_S)) as made,
            ):
                made.settimeout(PATIENCE_S)
                made.sendall(begin + request)
                first = made.recv(4096).split(b"\r\n")[0]
                if re.match(rb"HTTP/1.\d [1-3]", first):
                    yield f"port {port} answers to {path}: {first!r}"


async def _identity(address: str, security: Any) -> object:
    """What a Dask scheduler or worker says of itself, which it says to whoever may give it orders."""
    from distributed.core import rpc

    given = security.get_connection_args("client") if security else {}
    async with rpc(address, timeout=PATIENCE_S, connection_args=given) as there:
        return await asyncio.wait_for(there.identity(), PATIENCE_S)


def steered(port: int) -> Iterator[str]:
    """An answer of Dask, without TLS and with a certificate that was made by another."""
    from distributed import Security

    for kind, security in (("tcp", None), ("tls", Security.temporary())):
        with suppress(Exception):
            asyncio.run(_identity(f"{kind}://127.0.0.1:{port}", security))
            yield f"port {port} takes orders by {kind}"


def touched(process: int) -> Iterator[str]:
    """What can be done to a process."""
    with suppress(OSError):
        os.kill(process, 0)  # whether there could be another signal, too: kill(2)
        yield f"signals process {process}"
    for what in ("mem", "environ", "maps"):
        with suppress(OSError), Path(f"/proc/{process}/{what}").open("rb") as file:
            file.read(1)
            yield f"reads /proc/{process}/{what}"
    with suppress(OSError):
        line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        if SECRET.search(line):
            yield f"sees a secret in the command line {line}"


def main(words: Sequence[str]) -> None:
    folders = [word for word in words if not word.startswith("pid=")]
    pids = [int(word.removeprefix("pid=")) for word in words if word.startswith("pid=")]
    pids = pids or [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    pids = [pid for pid in pids if pid != os.getpid()]
    ports = listening()
    done = [f"tried {len(pids)} processes, {len(ports)} ports, {' '.join(folders)}"]
    for folder in folders:
        done += readable(folder)
    with ThreadPoolExecutor() as pool:
        for found in pool.map(lambda port: [*answered(port), *steered(port)], ports):
            done += found
    for pid in pids:
        done += touched(pid)
    sys.stdout.write("".join(f"{line}\n" for line in done))


if __name__ == "__main__":
    main(sys.argv[1:])
