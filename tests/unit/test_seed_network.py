"""What a guest's seed says of its network."""

from __future__ import annotations

import io
import tarfile

import pytest

from lab.image.identity import make_key
from lab.image.seed import Network, make_seed

HOST_KEY, HOST_PUBLIC = make_key("web-0")


def unpack(network: Network) -> dict[str, str]:
    content = make_seed(
        name="web-0", host_key=HOST_KEY, host_key_public=HOST_PUBLIC, authorized_keys=[], network=network
    )
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def test_an_address_alone_leaves_no_way_out_and_nobody_to_ask() -> None:
    files = unpack(Network("10.77.0.2/24", None, None))
    assert files["etc/freezelab/network"] == "mode=static\naddress=10.77.0.2/24\n"
    assert files["etc/resolv.conf"] == ""


@pytest.mark.parametrize(
    ("network", "resolv"),
    [(Network(), "nameserver 10.0.2.3\n"), (Network(None, None, None), None)],
    ids=["user-mode", "dhcp"],
)
def test_the_name_server_is_the_network_s(network: Network, resolv: str | None) -> None:
    assert unpack(network).get("etc/resolv.conf") == resolv
