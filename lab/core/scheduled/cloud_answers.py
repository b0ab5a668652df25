"""The answers of the cloud that a service is in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from lab.core.clock import Stamp
from lab.core.scheduled import ec2, gce, requests
from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.ec2 import ImdsOptions
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.requests import Answer, Request

_POLLS = {
    Cloud.AZURE: re.compile(r"/metadata/scheduledevents/?"),
    Cloud.GCE: re.compile(
        r"/computeMetadata/v1/instance/(maintenance-event|upcoming-maintenance(/.*)?|preempted)"
    ),
    Cloud.EC2: re.compile(
        r"/[^/]+/meta-data/(events/(maintenance/scheduled|recommendations/rebalance)"
        r"|spot/(instance-action|termination-time))"
    ),
}


@dataclass(frozen=True)
class CloudAnswers:
    """What a service says in its cloud's words. imds: in EC2."""

    cloud: Cloud = Cloud.AZURE
    imds: ImdsOptions = field(default_factory=ImdsOptions)

    def answer(
        self,
        machine: Machine,
        instances: Mapping[str, InstanceInfo],
        guest: str,
        now: Stamp,
        request: Request,
    ) -> Answer:
        """The answer to the guest's request; see requests.answer."""
        match self.cloud:
            case Cloud.AZURE:
                return requests.answer(machine, instances, guest, now, request)
            case Cloud.GCE:
                return gce.answer(machine, instances, guest, now, request)
            case Cloud.EC2:
                return ec2.answer(machine, instances, guest, now, request, self.imds)

    def refusal(self, status: HTTPStatus, why: str = "") -> Answer:
        """The answer to a message that is not a valid request. why: the error."""
        match self.cloud:
            case Cloud.AZURE:
                return requests.refusal(status, why)
            case Cloud.GCE:
                return gce.error(status.value, why)
            case Cloud.EC2:
                return ec2.error(status.value, why)

    def is_poll(self, path: str) -> bool:
        """True for a path that is about events and nothing else."""
        return _POLLS[self.cloud].fullmatch(path) is not None
