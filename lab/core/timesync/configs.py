"""The configurations that the lab installs, by mechanism: {server} and {port} are filled in.

They stand here, beside the rules that read them, because what a plan predicts is predicted from the same text
as what a run does.
"""

from __future__ import annotations

from lab.core.mechanism import ResyncMechanism

CHRONY = """\
server {server} port {port} minpoll 0 maxpoll 0 iburst
makestep 1.0 -1
driftfile /run/chrony/drift
"""

CONFIGS: dict[ResyncMechanism, str] = {
    ResyncMechanism.CHRONY: CHRONY,
}


def filled(mechanism: ResyncMechanism, server: str, port: int) -> str:
    """The mechanism's configuration for this server; "" for one without."""
    return CONFIGS.get(mechanism, "").replace("{server}", server).replace("{port}", str(port))
