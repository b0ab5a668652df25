"""How many requests a guest has sent to the metadata service, and how they were answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

from lab.core.scheduled.requests import Answer, Request


@dataclass
class RequestCounts:
    """Since the service began. requests: all. polls: those about events and nothing else; documents: polls
    that were answered with a document, also with a broken one on purpose. acknowledgements: accepted ones.
    refused: those that were answered with an error, by status; what is no HTTP is among them, as 400."""

    requests: int = 0
    polls: int = 0
    documents: int = 0
    acknowledgements: int = 0
    refused: dict[int, int] = field(default_factory=dict)

    def add(self, request: Request | None, answer: Answer, poll: bool = False) -> None:
        """Count a request. None: what has come is none. poll: it is about events."""
        good = answer.status == HTTPStatus.OK and not answer.never
        self.requests += 1
        if answer.status >= HTTPStatus.BAD_REQUEST:
            self.refused[answer.status] = self.refused.get(answer.status, 0) + 1
        if request is None or not poll:
            return
        if request.verb == "GET":
            self.polls += 1
            self.documents += good
        elif request.verb == "POST":
            self.acknowledgements += good
