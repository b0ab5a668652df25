"""The dead-man: a process beside the controller that resumes its guests when the controller cannot.

    client    the controller's end: starts the process, says what is to be frozen and until when
    channel   messages over a socket pair, and the token that decides a hand-over
    watch     the process: waits for the budget's end, for silence, for the end of the controller
    rescue    how a guest is made to run again, one class for each way to freeze

The process is started before the first freeze of a run, in a session of its own (and, where systemd's user
manager is there, in a scope of its own), so that it outlives the controller, its terminal and its cgroup. It
needs no libvirt for what a QEMU process still holds: it has a monitor and a pidfd of each. It needs libvirt
for what only a file holds (save-restore, cold exchanges); the embedded driver is held by the controller,
so a controller that is stopped is ended first there.

It acts when the budget is over, when the controller has ended (end of file), or when the controller has been
silent for `channel.SILENT_S`, and not before. What it did it appends to the run's history, as events of the
kind "deadman". A freeze without a live dead-man is refused; when it is lost in a freeze, the controller
resumes the guests at once.
"""
