"""`python -m lab.host.network CONTROL`: started by lab_network.LabNetwork."""

import sys

from lab.host.network.process import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
