"""A network of the lab's own: guests see each other without root and without a bridge of the host.

- `lab_network`: the network as the controller sees it. `process`, `__main__`: the switch's process.
- `switch`: what it forwards, and when. `namespace`: the host's own place, where clients run.
"""

from lab.host.network.lab_network import Attachment as Attachment
from lab.host.network.lab_network import LabNetwork as LabNetwork
