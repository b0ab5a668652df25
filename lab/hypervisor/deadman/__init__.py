"""The dead-man: a process beside the controller that resumes its guests when the controller cannot.

    client    the controller's end: starts the process, sends it the guests to guard and their time limit
    channel   messages over a socket pair, and the token that decides a hand-over
    watch     the process: waits for the end of the budget, the controller's silence, or its end
    rescue    resumes a guest; one class for each way to freeze; `thaw` and `peer` have two more
    guest_process    a frozen guest's process and its monitor

The process is started before the first freeze of a run, in its own session (and in its own scope where
systemd's user manager runs), so that it outlives the controller, its terminal and its cgroup. It does not
need libvirt for a guest that still has a QEMU process, because it has a monitor and a pidfd of each. It needs
libvirt for a guest that is only a file (save-restore, cold exchanges). There it ends a stopped controller
first, because the controller holds the embedded driver.

It acts when the budget is over, when the controller has ended (end of file), or when the controller has been
silent for `channel.SILENT_S`, and not before. It appends its actions to the run's history, as events of the
kind "deadman". A freeze without a live dead-man is refused. When the dead-man is lost during a freeze, the
controller resumes the guests at once.
"""
