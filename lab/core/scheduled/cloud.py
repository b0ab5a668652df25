"""The clouds whose notices the metadata service can give. A guest is in one cloud, and so is a service.

Each cloud answers by a module of its own over the same state machine; this one has what else differs: who is
given a notice, how long it is, and whether guests can end it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lab.core.scheduled.model import Enabling, EventType


@dataclass(frozen=True)
class CloudTraits:
    """Where a cloud differs.

    notices: what it calls them. document, header: how a client asks for them. enabling: who gets a notice.
    approvals: whether guests can have an event start before NotBefore. sets: whether guests of a set get each
    other's. notice_s: the documented or usual notice of a type, where it is not Azure's. descriptions: of
    types, where they are not Azure's. host_names: of the service, in guests.
    """

    notices: str
    document: str
    header: str
    enabling: Enabling = Enabling.ASKING
    approvals: bool = False
    sets: bool = False
    notice_s: Mapping[EventType, int] = field(default_factory=dict)
    descriptions: Mapping[EventType, str] = field(default_factory=dict)
    host_names: tuple[str, ...] = ()


class Cloud(StrEnum):
    """The cloud that a guest is in."""

    AZURE = "azure"
    GCE = "gce"
    EC2 = "ec2"

    @property
    def traits(self) -> CloudTraits:
        return _TRAITS[self]

    def notice_s(self, kind: EventType) -> int:
        """The notice of a type of event, in seconds: documented, or the lab's choice where it is not."""
        return self.traits.notice_s.get(kind, kind.minimum_notice_s)

    def minimum_s(self, kind: EventType) -> int:
        """The documented notice of a type of event, in seconds; 0 where there is none."""
        return kind.minimum_notice_s if self is Cloud.AZURE else self.traits.notice_s.get(kind, 0)


GCE_NOTICE_S = 60
"""From the change of maintenance-event to the maintenance (Compute Engine's documentation)."""

_TRAITS = {
    Cloud.AZURE: CloudTraits(
        "Scheduled Events",
        "/metadata/scheduledevents?api-version=2020-07-01",
        "Metadata: true",
        approvals=True,
        sets=True,
    ),
    Cloud.GCE: CloudTraits(
        "maintenance-event of Compute Engine's metadata server",
        "/computeMetadata/v1/instance/maintenance-event",
        "Metadata-Flavor: Google",
        Enabling.ASKING_AGAIN,
        notice_s={
            EventType.FREEZE: GCE_NOTICE_S,
            EventType.REBOOT: GCE_NOTICE_S,
            EventType.REDEPLOY: GCE_NOTICE_S,
            EventType.TERMINATE: GCE_NOTICE_S,
            EventType.PREEMPT: 30,  # the soft power-off's time, by the documentation of preemptible machines
        },
        host_names=("metadata.google.internal", "metadata"),
    ),
    Cloud.EC2: CloudTraits(
        "EC2's instance metadata",
        "/latest/meta-data/events/maintenance/scheduled",
        "X-aws-ec2-metadata-token: what PUT /latest/api/token answers",
        Enabling.EVERYBODY,
        notice_s={EventType.PREEMPT: 120},  # the two minutes of a Spot Instance interruption notice
        descriptions={
            EventType.FREEZE: "scheduled maintenance",
            EventType.REBOOT: "scheduled reboot",
            EventType.REDEPLOY: "The instance is running on degraded hardware",
            EventType.TERMINATE: "scheduled retirement",
        },
    ),
}
