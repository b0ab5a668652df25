"""The lab's own workloads, for tests: their guests, the texts that lie there, and what follows from them."""

from __future__ import annotations

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.units import NS_PER_MS
from lab.core.workload.prediction import Threshold
from lab.core.workload.shipped import SHIPPED
from lab.core.workload.shipped.base import WorkloadGuest


def guests_of(name: str, **options: str) -> dict[str, WorkloadGuest]:
    shipped = SHIPPED[name]
    return {guest.name: guest for guest in shipped.guests(dict(shipped.options) | options)}


def file_of(guest: WorkloadGuest, path: str) -> str:
    (file,) = [file for file in guest.setup.files if file.to == path]
    return file.content


def predicted(name: str, config: dict[str, str], regime: Regime, **options: str) -> dict[str, Threshold]:
    shipped = SHIPPED[name]
    found = shipped.predict(config, dict(shipped.options) | options, regime)
    return {one.what: one for one in found if isinstance(one, Threshold)}


def ms(low: int, high: int) -> Interval:
    return Interval(low * NS_PER_MS, high * NS_PER_MS)
