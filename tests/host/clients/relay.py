"""A door of one network namespace, carried into another: what connects to 169.254.169.254:80 in the first is
passed on to an address in the second, byte for byte. Arguments: both namespaces' names, address, port. Prints
"ready"."""

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
from pathlib import Path

DOOR = ("169.254.169.254", 80)


def enter(name: str) -> None:
    with Path("/run/netns", name).open("rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"cannot enter {name}: {os.strerror(ctypes.get_errno())}")


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
        writer.write_eof()


async def serve(door: socket.socket, address: str, port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(address, port)
            with contextlib.closing(far_writer):
                await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async with await asyncio.start_server(carry, sock=door) as server:
        print("ready", flush=True)  # noqa: T201 - what the test waits for
        await server.serve_forever()


def main() -> None:
    near, far, address, port = sys.argv[1:]
    enter(near)
    # A socket stays in the namespace that it was made in, wherever its process goes.
    door = socket.create_server(DOOR)
    enter(far)
    asyncio.run(serve(door, address, int(port)))


if __name__ == "__main__":
    main()
