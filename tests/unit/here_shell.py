"""What stands in for a lab host where none is needed: this machine."""

from __future__ import annotations

import re
from pathlib import Path

from lab.session.lab_host_shell import LabHostShell


class HereShell(LabHostShell):
    """A lab host that is this machine, with its folders below `root`. sent: the commands."""

    def __init__(self, root: Path) -> None:
        super().__init__(["env", "--"])
        self.root = root
        self.sent: list[str] = []

    def command(self, command: str, *options: str) -> list[str]:
        del options
        self.sent.append(command)
        for folder in ("srv", "root", "run"):
            command = re.sub(rf"(?<![\w.])/{folder}/", f"{self.root}/{folder}/", command)
        return ["sh", "-c", command]
