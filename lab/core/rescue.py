"""A guest that somebody else than the controller resumed: whose call that was, and what it makes of the
cycle."""

from __future__ import annotations

from dataclasses import replace

from lab.core.timeline import Call, Observation

RESUMED, ENDED, FAILED = "resumed", "ended", "failed"
"""What the dead-man did (Rescue.act)."""

BY_DEADMAN, BY_OTHERS = "dead-man", "somebody else"
"""CycleResult.resumed_by."""

AT_ONCE = "resumed at once: "
"""How a problem begins of a guest that was resumed before its time, for its dead-man was lost."""

CUT_OFF = "the cycle was cut off"
RAN = "somebody else resumed the guest: it ran before the lab resumed it"


def by_deadman(obs: Observation) -> str:
    """Why the dead-man resumed the guest before the controller did, one line; "" when it did not."""
    for rescue in obs.rescues:
        if rescue.act == RESUMED and obs.frozen and (rescue.call is None or _first(rescue.call, obs.resume)):
            return f"resumed by the dead-man: {rescue.why}"
    return ""


def again_by_deadman(obs: Observation) -> str:
    """Why the dead-man resumed the guest once more, after the controller had, one line; "" when it did not.
    It leaves a guest alone that runs, so this one stood still again while it was watched."""
    for rescue in obs.rescues:
        late = rescue.call is not None and not _first(rescue.call, obs.resume)
        if rescue.act == RESUMED and obs.frozen and late:
            return f"stood still again after its resume, and was resumed by the dead-man: {rescue.why}"
    return ""


def not_by_deadman(obs: Observation) -> str:
    """Why the dead-man did not resume a guest that the controller had not resumed either, one line: its QEMU
    has ended, libvirt does not answer; "" when one of them did, or nobody tried."""
    acts = [rescue.act for rescue in obs.rescues]
    if obs.resume is not None or RESUMED in acts or not acts or acts[-1] not in (ENDED, FAILED):
        return ""
    return f"not resumed by the dead-man: {obs.rescues[-1].text or obs.rescues[-1].why}"


def _first(call: Call, own: Call | None) -> bool:
    """Whether it may have resumed the guest before the controller's own call did."""
    return own is None or call == own or call.called.raw_ns < own.returned.raw_ns


def as_resumed(obs: Observation) -> Observation:
    """The observation with the call that made the guest run again for its resume: the dead-man's when it came
    before the controller's own. Two calls of which nobody can say which was first, and one that failed and
    may have resumed the guest all the same, are taken together: it was resumed between the first call's
    beginning and the first return that counts."""
    if not obs.frozen:
        return obs
    resume = obs.resume
    for rescue in obs.rescues:
        call = rescue.call
        if call is None or call == resume or not _first(call, resume):
            continue
        if rescue.act != RESUMED:
            if resume is not None:
                called = min(call.called, resume.called, key=lambda stamp: stamp.raw_ns)
                resume = Call(called, resume.returned)
        elif resume is None or call.returned.raw_ns <= resume.called.raw_ns:
            resume = call
        else:
            called = min(call.called, resume.called, key=lambda stamp: stamp.raw_ns)
            resume = Call(called, min(call.returned, resume.returned, key=lambda stamp: stamp.raw_ns))
    return replace(obs, resume=resume)
