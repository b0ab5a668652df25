"""Has a guest join the lab's own network: its second card gets an address, and /etc/hosts all names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from lab.errors import GuestError
from lab.guest.ssh import SSH

JOIN_S = 60.0
BEGIN, END = "# freezelab network", "# freezelab network end"

# NetworkManager would look for a DHCP server on the card, and take its address away when there is none.
_JOIN = """\
set -e
PATH=$PATH:/usr/sbin:/sbin
card=
for path in /sys/class/net/*; do
    if [ "$(cat "$path/address" 2>/dev/null)" = {mac} ]; then card=${{path##*/}}; fi
done
if [ -z "$card" ]; then echo 'there is no network card {mac}' >&2; exit 1; fi
if ! command -v ip >/dev/null; then echo 'there is no ip(8); install iproute2' >&2; exit 1; fi
if command -v nmcli >/dev/null; then nmcli -w 10 device set "$card" managed no >/dev/null 2>&1 || true; fi
ip link set dev "$card" up
ip address flush dev "$card" scope global
ip address add {address} dev "$card"
new=/etc/hosts.freezelab
sed '/^{begin}$/,/^{end}$/d' /etc/hosts >$new
cat >>$new
cat $new >/etc/hosts
rm -f $new
"""


def join(ssh: SSH, address: str, mac: str, names: Mapping[str, str]) -> None:
    """Give the card with this MAC address its IP address, with prefix length, and put the addresses of
    `names` into /etc/hosts. May be repeated. GuestError when that fails."""
    command = _JOIN.format(mac=shlex.quote(mac), address=shlex.quote(address), begin=BEGIN, end=END)
    lines = [BEGIN, *(f"{ip} {name}" for name, ip in names.items()), END]
    result = ssh.run(command, JOIN_S, stdin="".join(f"{line}\n" for line in lines).encode())
    if result.status != 0:
        last = (result.err or result.out).strip().splitlines()[-1:] or ["no output"]
        raise GuestError(f"it cannot join the lab's network: {last[0]}", where=f"guest {ssh.address.guest}")
