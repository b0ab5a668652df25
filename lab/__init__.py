"""freezelab freezes real guests the way a cloud does, and measures what they felt.

Terms
    host          the machine that runs the lab
    guest         a virtual machine of the lab's: one QEMU process, or one after another
    controller    the process that runs a playbook
    dead-man      the process beside it that resumes guests when the controller cannot
    playbook      a YAML file that says what is done and what is expected; a plan is what is read from it
    freeze        the maintenance: a guest is stopped by a method, and resumed
    method        how a guest is frozen: suspend, sigstop, save-restore, in-place, guest-sleep, reboot
    patch         what is done to the host meanwhile
    budget        how long a guest may stand still
    cycle         one freeze with all that is measured before and after; a control cycle has no freeze
    cell          one combination of a matrix's values, with cycles of its own
    reading       one exchange of time stamps between host and guest
    offset        guest clock minus host clock
    pause         the host time in which no instruction of the guest ran
    witness       one independent measurement of a pause: hypervisor, lag, gap, silence
    closure       what the witnesses leave unexplained
    regime        what the guest's clocks did in the pause: resumed, jumped, mixed
    resync        the guest's clock coming back to the host's; a mechanism is what does it
    forecast      what a mechanism's rules say before the freeze
    claim         what the guest says of its own clock
    event         a Scheduled Event: what the metadata service announces; a notice is the time it gives
    wave          an update domain's turn in a rollout; a gate is what is asked after it
    history       a run's events.jsonl; the record is run.json, which is made from it
    finding       one expectation compared with what was measured
    verdict       passed, failed or inconclusive

A run
    1. The playbook is read and checked, and what this machine lacks for it is named.
    2. What a killed run left is cleared away; images, golden guests and emulators are made ready.
    3. Guests start, and are set to time; a mechanism is installed in each.
    4. Clocks are read from outside and inside, until they are known well.
    5. The maintenance is announced, and waited for.
    6. The guests are frozen, with a dead-man and a budget.
    7. The host is patched, and the guests are resumed.
    8. Their clocks are watched coming back; what was seen inside is fetched.
    9. Guests are removed; the history is judged, the record written, the report printed.

docs/architecture.md has the same as a picture; docs/measuring.md says how things are measured.
"""

__version__ = "0.1.0"
