"""`python -m lab.hypervisor.deadman END CONTROLLER_PID CONTROLLER_PIDFD HISTORY`: started by
client.DeadMan."""

import sys

from lab.hypervisor.deadman.watch import main

if __name__ == "__main__":
    end, pid, pidfd, history = sys.argv[1:]
    main(int(end), int(pid), int(pidfd), history)
