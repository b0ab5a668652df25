"""Guests that something other than the controller resumed: whose call that was, and what it means for the
cycle."""

from __future__ import annotations

from dataclasses import replace

from lab.core.timeline import Call, Observation

RESUMED, ENDED, FAILED = "resumed", "ended", "failed"
"""Values of Rescue.act: what the dead-man did."""

BY_DEADMAN, BY_OTHERS = "dead-man", "somebody else"
"""Values of CycleResult.resumed_by."""

AT_ONCE = "resumed at once: "
"""Prefix of the problem text of a guest that was resumed early because its dead-man was lost."""

CUT_OFF = "the cycle was cut off"
RAN = "somebody else resumed the guest: it ran before the lab resumed it"


def by_deadman(obs: Observation) -> str:
    """Why the dead-man resumed the guest before the controller did, one line; "" when it did not."""
    for rescue in obs.rescues:
        if (
            rescue.act == RESUMED
            and obs.method.needs_resume
            and (rescue.call is None or _first(rescue.call, obs.resume))
        ):
            return f"resumed by the dead-man: {rescue.why}"
    return ""


def again_by_deadman(obs: Observation) -> str:
    """Why the dead-man resumed the guest once more, after the controller had, one line; "" when it did not.
    The dead-man acts only on stopped guests, so this one was stopped again during the watch."""
    for rescue in obs.rescues:
        late = rescue.call is not None and not _first(rescue.call, obs.resume)
        if rescue.act == RESUMED and obs.method.needs_resume and late:
            return f"stood still again after its resume, and was resumed by the dead-man: {rescue.why}"
    return ""


def not_by_deadman(obs: Observation) -> str:
    """Why the dead-man did not resume a guest that the controller had not resumed either, one line: its QEMU
    has ended, libvirt does not answer; "" when one of them did, or neither tried."""
    acts = [rescue.act for rescue in obs.rescues]
    if obs.resume is not None or RESUMED in acts or not acts or acts[-1] not in (ENDED, FAILED):
        return ""
    return f"not resumed by the dead-man: {obs.rescues[-1].text or obs.rescues[-1].why}"


def _first(call: Call, own: Call | None) -> bool:
    """True when the call may have resumed the guest before the controller's own."""
    return own is None or call == own or call.called.raw_ns < own.returned.raw_ns


def as_resumed(obs: Observation) -> Observation:
    """The observation with the resume call that actually took effect: the dead-man's when it came before the
    controller's own. Two calls whose order is not known are combined, and so is a failed call that may have
    resumed the guest: the resume then lies between the start of the first call and the first return of an
    effective one."""
    if not obs.method.needs_resume:
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
