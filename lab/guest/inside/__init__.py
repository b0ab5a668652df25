"""Programs that run inside guests, on any Linux with Python 3.6 or later and nothing but its library.

Each is sent as text over SSH (lab/guest/program.py), after the parts that it imports, and is never imported
by the lab. So no name of a part may be a name of another one that it is sent with. What one program alone
needs stands in that program: the guest compiles every line at each start. vermin checks the version of Python
(tests/lint); "# novm" marks what is used only where it is there.

    program          started by                   what it does
    plain_probe      guest/probe.py, local.py     answers readings, samples the clocks, sends heartbeats
    pause_watcher    guest/watcher.py             collects clock claims and a pause's side effects
    memory_filler    guest/fill.py                fills memory with pages that do not compress, and verifies
    golden_probe     guest/identity.py            the same in golden guests, and makes guests of their copies
    clock_setter     guest/timesync/push.py       steps the clock as the host says, reads the RTC
    disk_writer      guest/writer.py              writes and syncs, and thaws file systems
    work_counter     guest/work_counter.py        dirties memory, and counts how fast the guest works
    vmclock_watch    guest/timesync/vmclock.py    watches vmclock, and has chronyd poll after a disruption
    time_keepers     guest/discipline.py          prints what the kernel and /proc show of who keeps the clock

    part             what it holds
    clock_probe      the probe
    clone_identity   how another guest is made of a copy of a golden one
    clock_setting    how the clock is read and set at the host's word
    clocks           the clocks' numbers and gettime, in nanoseconds
    adjtimex         adjtimex(2) and struct timex
    files            small files of the kernel's
    host_streams     standard input and output, and how to let go of them
    background       how a program goes on without the shell that started it
    unix_socket      the socket at which a running program is reached again, and a request taken
    shell_probe.sh   the probe where there is no Python: POSIX sh
    shell_setter.sh  the same for clock_setter
    shell_thaw.sh    what thaws file systems there
    shell_clock.sh   the part of all three: how a shell reads the clock
    host_clock       the host's clock, by ptp_kvm
    packet_stamps    the kernel's stamps of the packets that carried a reading
    serial_channel   the virtio-serial channels
    asker            what the watcher does now and then
    clock_claims     what the guest's own programs claim of its clock
    side_effects     timers, the order of clocks between vCPUs, the RTC, busy vCPUs
"""
