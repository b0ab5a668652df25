"""A worker on a host, for a controller at the other end of this process's standard input (ssh_cluster).

Its first line is the order: where the scheduler is, and the certificates, which are on no command line. A
line follows every few seconds. When they stop coming, the controller or the link is gone: then the worker has
its cells resume and remove their guests, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, TextIO

from lab.errors import MachineError, UsageError
from lab.hosts import cell_task
from lab.hosts.cell_server import CLEAN_UP_S
from lab.hosts.cluster import QUIET, RESOURCE, imported
from lab.session.work_folders import made_work_folder

SILENCE_S = 60.0
"""Seconds without a line after which the controller is given up."""

REGISTER_S = 60.0


def serve(orders: TextIO, answers: TextIO) -> None:
    """Be a worker until `orders` ends. MachineError when distributed is missing or the scheduler does not
    answer, UsageError without an order."""
    distributed = imported()
    try:
        order = json.loads(orders.readline())
        order["scheduler"], order["contact"], order["name"], order["security"]
    except (ValueError, KeyError, TypeError):
        hint = "run --hosts starts it over SSH"
        raise UsageError("there is no order on standard input", where="hosts worker", hint=hint) from None
    asyncio.run(_served(distributed, order, orders.fileno(), answers))


async def _served(distributed: Any, order: dict[str, Any], orders: int, answers: TextIO) -> None:
    import dask

    settings = {**QUIET, "distributed.worker.http.routes": []}
    with _folder() as folder, dask.config.set(settings):
        worker = distributed.Worker(
            order["scheduler"],
            name=order["name"],
            nthreads=1,
            resources={RESOURCE: 1},
            memory_limit=0,
            security=distributed.Security(require_encryption=True, **order["security"]),
            host="tls://127.0.0.1",
            contact_address=order["contact"],
            dashboard_address="127.0.0.1:0",
            local_directory=folder,
            death_timeout=REGISTER_S,
        )
        try:
            await asyncio.wait_for(worker, REGISTER_S)
            port = int(worker.listener.listen_address.rpartition(":")[2])  # worker.port is the contact's
            answers.write(json.dumps({"port": port}) + "\n")
            answers.flush()
            await _heard(worker, orders)
        except (TimeoutError, OSError) as error:
            raise MachineError(f"the scheduler is not reached: {error}", where="hosts worker") from None
        finally:
            await _end_cells()
            await worker.close()


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder for Dask, which writes the key to a file for the moment in which OpenSSL reads it. At
    the end it is removed, and the playbooks that the worker was sent as well."""
    folder = made_work_folder(f"worker-{os.getpid()}")
    tempfile.tempdir = str(folder)
    try:
        yield str(folder)
    finally:
        for run in list(cell_task.received):
            cell_task.forget(run)
        shutil.rmtree(folder, ignore_errors=True)


async def _heard(worker: Any, orders: int) -> None:
    """Return when the worker has ended, or no line has come for SILENCE_S."""
    loop, heard = asyncio.get_running_loop(), asyncio.Queue[bytes]()
    loop.add_reader(orders, lambda: heard.put_nowait(os.read(orders, 4096)))
    finished = asyncio.ensure_future(worker.finished())
    try:
        while not finished.done():
            line = asyncio.ensure_future(heard.get())
            done, _ = await asyncio.wait((line, finished), timeout=SILENCE_S, return_when="FIRST_COMPLETED")
            if line not in done:
                line.cancel()
                return
            if not line.result():
                return
    finally:
        loop.remove_reader(orders)
        finished.cancel()


async def _end_cells() -> None:
    """Have all children end, and wait for them."""
    for run in list(cell_task.running):
        cell_task.end(run)
    end = asyncio.get_running_loop().time() + CLEAN_UP_S
    while cell_task.running and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.1)
