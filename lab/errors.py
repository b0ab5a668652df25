"""Expected failures: what failed, where, and what to do next.

Outside exceptions (libvirt's, paramiko's, OSError) are turned into one of these
once, at the edge where they appear; everything further in lets them pass. The
command line prints them as one or two lines and exits with `exit_code`.
"""

from __future__ import annotations


class FreezelabError(Exception):
    """Base of all expected failures.

    what: what failed, a short sentence without a full stop.
    where: the file, guest, command or address concerned ("" when `what` says it).
    hint: what to do next ("" when there is nothing to do).
    """

    exit_code = 4

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n{self.hint}" if self.hint else text


class UsageError(FreezelabError):
    """The command line asks for something that does not exist or make sense."""

    exit_code = 2


class PlaybookError(UsageError):
    """A playbook cannot be used; `what` may hold several lines, one per mistake."""


class MachineError(FreezelabError):
    """The host lacks something: a program, memory, disk space, a permission."""


class HypervisorError(FreezelabError):
    """libvirt or QEMU refused or failed."""


class AgentError(HypervisorError):
    """A guest's agent answered with an error: to ask it again, or to wait, is of no use."""


class Refused(HypervisorError):
    """A guest cannot be treated this way, here: nothing was tried."""


class GuestError(FreezelabError):
    """A guest did not boot, answer, or behave."""


class GuestGone(GuestError):
    """A guest that is known not to answer now: to wait for it, or to try again, is of no use.

    ended: it will not come back by itself: its domain has ended, or QEMU has stopped it.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", ended: bool = False) -> None:
        super().__init__(what, where=where, hint=hint)
        self.ended = ended

    def again(self) -> GuestGone:
        """The same, to be raised once more: a raised one keeps what it passed through."""
        return type(self)(self.what, where=self.where, hint=self.hint, ended=self.ended)


class ImageError(FreezelabError):
    """A guest image cannot be built, found or used."""


class RecordError(UsageError):
    """A run on disk is missing, truncated, or not one of ours."""


class Interrupted(FreezelabError):
    """SIGINT, SIGTERM or SIGHUP arrived; guests are resumed while it passes."""

    exit_code = 130
