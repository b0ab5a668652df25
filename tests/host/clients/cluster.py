"""A cluster as azure-events-az sees it: crm.py in place of Pacemaker's programs, and the agent run as
Pacemaker runs it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.host.clients.namespaces import Namespace
from tests.host.clients.packages import Clients

HEALTH = "#health-azure"
STATE = "azure-events-az_curNodeState"
PENDING = "azure-events-az_pendingEventIDs"
PROGRAMS = ("crm_attribute", "crm_node", "crm_resource", "crm_simulate")
STAND_IN = Path(__file__).with_name("crm.py")

BUSY = (
    "rsc_db\t(ocf:heartbeat:db):\t Started: rsc_db_start_0 (node={node}, call=-1, rc=193,"
    " last-rc-change='Mon Nov 23 08:00:00 2026', exec=0ms): pending\n"
)
"""What crm_resource --list-operations says of a resource that is being started."""


@dataclass
class Cluster:
    """Nodes that share attributes; a node's name is its machine's host name. settings: the agent's
    parameters."""

    folder: Path
    nodes: Sequence[str]
    clients: Clients
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir(parents=True)
        for program in PROGRAMS:
            (self.folder / "bin" / program).symlink_to(STAND_IN)
        (self.folder / "nodes.json").write_text(json.dumps(list(self.nodes)), encoding="utf-8")
        (self.folder / "attributes.json").write_text("[]", encoding="utf-8")

    def agent(self, action: str, node: str, inside: Namespace) -> subprocess.CompletedProcess[str]:
        """The agent, on a node whose metadata service is that of `inside`."""
        env = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "FREEZELAB_CRM": str(self.folder),
            "OCF_ROOT": str(self.clients.root / "usr/lib/ocf"),
            "OCF_RESOURCE_INSTANCE": "rsc_azure-events-az",
            "HA_LOGFILE": str(self.folder / f"{node}.log"),
            "HA_debug": "1",
            **{f"OCF_RESKEY_{name}": value for name, value in self.settings.items()},
        }
        program = self.clients.root / "usr/lib/ocf/resource.d/heartbeat/azure-events-az"
        done = inside.run(str(program), action, host=node, env=env)
        refused = self.folder / "refused"
        assert not refused.exists(), f"calls that crm.py does not know: {refused.read_text('utf-8')}"
        return done

    def monitor(self, node: str, inside: Namespace) -> None:
        """The recurring action, which has to succeed."""
        done = self.agent("monitor", node, inside)
        assert done.returncode == 0, f"{done.stderr}\n{self.log(node)}"

    def log(self, node: str) -> str:
        return (self.folder / f"{node}.log").read_text(encoding="utf-8")

    def attributes(self) -> dict[tuple[str, str], str]:
        """By node ("" for the cluster) and name."""
        text = (self.folder / "attributes.json").read_text(encoding="utf-8")
        return {(node, name): value for (node, name), value in json.loads(text)}

    def attribute(self, name: str, node: str = "") -> str:
        """ "" when it is not set."""
        return self.attributes().get((node, name), "")

    def updates(self, node: str, name: str) -> list[str]:
        """What an attribute of a node was set to, in order."""
        calls = [json.loads(line) for line in (self.folder / "calls").read_text("utf-8").splitlines()]
        found = []
        for _, program, *words in calls:
            if program == "crm_attribute" and "--update" in words:
                options = dict(pairwise(words))
                if options["--name"] == name and options.get("--node") == node:
                    found.append(options["--update"])
        return found

    def busy(self, node: str, is_busy: bool) -> None:
        """Whether a resource of a node is being started."""
        (self.folder / f"pending-{node}").write_text(
            BUSY.format(node=node) if is_busy else "", encoding="utf-8"
        )
