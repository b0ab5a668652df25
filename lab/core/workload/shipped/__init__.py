"""The workloads of the lab's own, one module each. Adding one: docs/adding.md.

base           what each is made of
state_server   a program for guests that tells what only they know
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.core.workload.shipped import echo, etcd, keepalived
from lab.core.workload.shipped.base import ShippedWorkload as ShippedWorkload

SHIPPED: Mapping[str, ShippedWorkload] = {
    one.name: one for one in (echo.ECHO, etcd.ETCD, keepalived.KEEPALIVED)
}
"""By name, as a playbook has it."""
