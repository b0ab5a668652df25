"""The domain's XML: what decides the clocks is there, and no value can break out of its place."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import HypervisorError
from lab.hypervisor.domain import (
    CPU,
    NAMESPACE,
    NOT_IN_TCG,
    Accelerator,
    Console,
    Disk,
    DomainSpec,
    FwCfg,
    RtcTrack,
    TickPolicy,
    render,
)

SPEC = DomainSpec(
    guest="web-0",
    run="20251122-221500-ab12",
    home=Path("/var/lib/freezelab"),
    memory_bytes=512 << 20,
    vcpus=2,
    accelerator=Accelerator.TCG,
    emulator=Path("/usr/bin/qemu-system-x86_64"),
    machine="pc-q35-7.2",
    kernel=Path("/images/vmlinuz"),
    initrd=Path("/images/initrd"),
    cmdline="root=/dev/vda console=ttyS0",
    console_log=Path("/runs/1/web-0.log"),
    disk=Disk(Path("/runs/1/web-0.qcow2")),
    ssh_port=22022,
    fw_cfg=(FwCfg("opt/freezelab/seed", Path("/runs/1/web-0.seed")),),
    uuid="3b8e96f6-5279-4459-ac9b-0d1ff4938347",
)
HOSTILE = """a"b'c<d>&e]]>{{ 7*7 }}--><x/>"""


def parsed(spec: DomainSpec) -> ET.Element:
    return ET.fromstring(render(spec))  # noqa: S314 - our own


def timers(root: ET.Element) -> dict[str, dict[str, str]]:
    return {timer.attrib["name"]: timer.attrib for timer in root.findall("clock/timer")}


@pytest.mark.parametrize("accelerator", Accelerator)
@pytest.mark.parametrize("track", RtcTrack)
def test_all_that_decides_the_clocks_is_there(accelerator: Accelerator, track: RtcTrack) -> None:
    root = parsed(
        dataclasses.replace(
            SPEC,
            accelerator=accelerator,
            rtc_track=track,
            rtc_tickpolicy=TickPolicy.DELAY,
            tsc_hz=2_000_000_000,
        )
    )
    assert root.find("clock[@offset='utc']") is not None
    found = timers(root)
    assert found["rtc"] == {"name": "rtc", "track": track.value, "tickpolicy": "delay"}
    assert found["pit"]["tickpolicy"] == "delay"
    assert found["hpet"]["present"] == "no"
    assert root.find("pm/suspend-to-mem[@enabled='no']") is not None
    assert root.findtext("on_reboot") == "restart"
    assert root.findtext("on_crash") == "destroy"
    if accelerator is Accelerator.KVM:
        assert root.attrib["type"] == "kvm"
        assert found["kvmclock"]["present"] == "yes"
        assert found["tsc"]["frequency"] == "2000000000"
        assert (
            root.find("cpu[@mode='host-passthrough']/feature[@name='invtsc'][@policy='disable']") is not None
        )
    else:
        assert root.attrib["type"] == "qemu"
        assert root.findtext("cpu[@mode='custom']/model") == CPU
        disabled = {each.attrib["name"] for each in root.iterfind("cpu/feature[@policy='disable']")}
        assert disabled == set(NOT_IN_TCG)
        assert not {"kvmclock", "tsc"} & set(found)


def test_it_is_marked_as_the_labs() -> None:
    root = parsed(SPEC)
    mark = root.find(f"metadata/{{{NAMESPACE}}}guest")
    assert mark is not None
    assert mark.attrib == {
        "name": "web-0",
        "run": SPEC.run,
        "home": "/var/lib/freezelab",
        "generation": "0",
        "port": "22022",
    }
    assert root.findtext("name") == f"freezelab-{SPEC.run}-web-0"


def test_the_device_set_is_lean() -> None:
    devices = parsed(SPEC).find("devices")
    assert devices is not None
    kinds = sorted(f"{d.tag}:{d.get('model') or d.get('type') or ''}" for d in devices)
    assert kinds == [
        "channel:unix", "controller:none", "controller:virtio-serial", "disk:file", "emulator:",
        "memballoon:none", "serial:file",
    ]  # fmt: skip


@pytest.mark.parametrize(("console", "tag"), [(Console.SERIAL, "serial"), (Console.VIRTIO, "console")])
def test_the_console_is_a_choice(console: Console, tag: str) -> None:
    root = parsed(dataclasses.replace(SPEC, console=console))
    assert root.find(f"devices/{tag}/source[@path='/runs/1/web-0.log'][@append='on']") is not None


def test_without_disk_network_initrd() -> None:
    root = parsed(dataclasses.replace(SPEC, disk=None, ssh_port=None, initrd=None, fw_cfg=()))
    assert root.find("devices/disk") is None
    assert root.find("os/initrd") is None
    assert root.find("sysinfo") is None
    assert "netdev" not in render(dataclasses.replace(SPEC, ssh_port=None))


def test_the_ssh_port_is_forwarded_from_loopback_only() -> None:
    assert "hostfwd=tcp:127.0.0.1:22022-:22" in render(SPEC)


def test_the_mac_follows_from_the_uuid() -> None:
    assert SPEC.mac == "52:54:00:93:83:47"


def test_hostile_values_stay_values() -> None:
    path = Path("/tmp") / HOSTILE
    spec = dataclasses.replace(
        SPEC,
        home=path,
        kernel=path,
        initrd=path,
        cmdline=HOSTILE,
        console_log=path,
        emulator=path,
        machine=HOSTILE,
        disk=Disk(path),
        fw_cfg=(FwCfg(HOSTILE, path),),
    )
    root = parsed(spec)
    assert [child.tag for child in root] == [child.tag for child in parsed(SPEC)]
    assert root.findtext("os/cmdline") == HOSTILE
    assert root.findtext("os/kernel") == str(path)
    source = root.find("devices/disk/source")
    assert source is not None
    assert source.get("file") == str(path)
    assert "7*7" in render(spec)


def test_commas_in_paths_are_doubled_for_qemu() -> None:
    spec = dataclasses.replace(
        SPEC,
        fw_cfg=(FwCfg("opt/a", Path("/a,b/seed")), FwCfg("opt/b", Path("/plain"))),
        memory_file=Path("/a,b/ram"),
    )
    root = parsed(spec)
    arguments = [
        argument.get("value") for argument in root.iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg")
    ]
    assert "name=opt/a,file=/a,,b/seed" in arguments
    assert f"memory-backend-file,id=labram,size={spec.memory_bytes},mem-path=/a,,b/ram,share=on" in arguments
    # libvirt gives QEMU's arguments their security labels, and its own the user they run as.
    assert [entry.get("name") for entry in root.iter("entry")] == ["opt/b"]
    nothing_else = dataclasses.replace(spec, ssh_port=None, memory_file=None)
    assert "name=opt/a,file=/a,,b/seed" in render(nothing_else)


@given(st.text(max_size=40))
def test_any_command_line_comes_back_or_is_refused(cmdline: str) -> None:
    try:
        root = parsed(dataclasses.replace(SPEC, cmdline=cmdline))
    except HypervisorError:
        return
    # XML itself reads \r and \r\n as \n.
    assert root.findtext("os/cmdline") == cmdline.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("name", ["", "-web", "we b", "web/0", "../x", "a" * 65, "web\n", "wéb", "a,b=c"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(HypervisorError, match="not a name"):
        dataclasses.replace(SPEC, guest=name)
    with pytest.raises(HypervisorError, match="not a name"):
        dataclasses.replace(SPEC, run=name)


@pytest.mark.parametrize("accelerator", Accelerator)
def test_virtio_devices_have_little_state_and_with_kvm_all_that_makes_them_fast(
    accelerator: Accelerator,
) -> None:
    text = render(dataclasses.replace(SPEC, accelerator=accelerator))
    for kind in ("blk", "serial", "net"):
        given = set(re.findall(rf"virtio-{kind}-pci\.(\S+?)\"", text))
        slow = {"ioeventfd=off", "vectors=0"} if accelerator is Accelerator.TCG else set()
        assert given == {"disable-modern=on", "disable-legacy=off"} | slow


def test_a_disk_that_firmware_boots_from_is_a_modern_device_too() -> None:
    """SeaBIOS finds no legacy disk with a queue of more than 256 entries, and QEMU 10.0.13's have 1024."""
    text = render(dataclasses.replace(SPEC, kernel=None, initrd=None))
    assert "virtio-blk-pci.disable-modern=off" in text
    assert "virtio-net-pci.disable-modern=on" in text


def test_a_successor_is_the_same_guest_in_another_process() -> None:
    first = dataclasses.replace(SPEC, memory_file=Path("/dev/shm/ram"), agent_socket=Path("/a"))
    second = first.successor(Path("/opt/qemu-system-x86_64"))
    assert second.uuid != first.uuid
    assert second.name != first.name
    assert (second.mac, second.machine, second.cpu, second.memory_file) == (
        first.mac, first.machine, first.cpu, first.memory_file,
    )  # fmt: skip
    arguments = [each.attrib["value"] for each in parsed(second).iterfind("{*}commandline/{*}arg")]
    assert arguments[-2:] == ["-incoming", "defer"]
    # The machine's UUID is the guest's, also when it boots in the new process: QEMU takes the later of two.
    assert second.machine_uuid == first.machine_uuid == first.uuid
    smbios = arguments.index("-smbios")
    assert arguments[smbios + 1] == f"type=1,uuid={first.uuid}"
    assert "-smbios" not in render(first)
    assert (
        f"memory-backend-file,id=labram,size={first.memory_bytes},mem-path=/dev/shm/ram,share=on" in arguments
    )
    assert not [each for each in arguments if "hostfwd" in each]  # the port is still its predecessor's
    again = second.again(first.emulator)
    booted = [each.attrib["value"] for each in parsed(again).iterfind("{*}commandline/{*}arg")]
    assert "-incoming" not in booted
    assert booted[smbios : smbios + 2] == ["-smbios", f"type=1,uuid={first.uuid}"]
    assert [each for each in booted if "hostfwd" in each]


def test_the_probes_channel_is_another_socket_in_each_process() -> None:
    first = dataclasses.replace(SPEC, agent_socket=Path("/a"), probe_socket=Path("/p"))
    second = first.successor(first.emulator).with_sockets_in(Path("/new"))
    assert not {*first.sockets} & {*second.sockets}
    for spec in (first, second):
        channels = {
            target.attrib["name"]: source.attrib["path"]
            for channel in parsed(spec).iterfind("devices/channel[@type='unix']")
            if (target := channel.find("target")) is not None
            and (source := channel.find("source[@mode='bind']")) is not None
        }
        assert channels["org.freezelab.probe.0"] == str(spec.probe_socket)
        assert channels["org.freezelab.push.0"] == f"{spec.probe_socket}.push" == str(spec.push_socket)
        assert {spec.probe_socket, spec.push_socket} <= set(spec.sockets)
    assert "org.freezelab.p" not in render(dataclasses.replace(SPEC, probe_socket=None))


def test_a_tap_instead_of_the_user_mode_network() -> None:
    spec = dataclasses.replace(SPEC, tap="fltap0")
    arguments = [each.attrib["value"] for each in parsed(spec).iterfind("{*}commandline/{*}arg")]
    assert "tap,id=lab0,ifname=fltap0,script=no,downscript=no" in arguments
    assert not [each for each in arguments if each.startswith("user,")]


def test_a_watchdog_only_where_it_is_asked_for() -> None:
    assert parsed(SPEC).find("devices/watchdog") is None
    watchdog = parsed(dataclasses.replace(SPEC, watchdog="reset")).find("devices/watchdog")
    assert watchdog is not None
    assert (watchdog.get("model"), watchdog.get("action")) == ("i6300esb", "reset")


def test_further_devices_are_also_in_a_successor() -> None:
    spec = dataclasses.replace(SPEC, devices=("vmclock",))
    for made in (spec, spec.successor(Path("/opt/qemu"))):
        words = [element.get("value") for element in parsed(made).iter() if element.tag.endswith("}arg")]
        assert words[words.index("vmclock") - 1] == "-device"
    assert "vmclock" not in [element.get("value") for element in parsed(SPEC).iter()]


def test_sleep_only_where_it_is_asked_for() -> None:
    assert parsed(SPEC).find("pm/suspend-to-mem[@enabled='no']") is not None
    sleeping = dataclasses.replace(SPEC, guest_sleep=True)
    assert parsed(sleeping).find("pm/suspend-to-mem[@enabled='yes']") is not None


def test_a_domain_without_a_kernel_boots_from_its_disk() -> None:
    root = parsed(
        dataclasses.replace(
            SPEC,
            kernel=None,
            initrd=None,
            cmdline="",
            fw_cfg=(),
            firmware=Path("/images/a&b/firmware.fd"),
            seed_disk=Path("/runs/1/seed.iso"),
        )
    )
    assert [child.tag for child in root.findall("os/*")] == ["type", "loader", "boot"]
    assert root.findtext("os/loader") == "/images/a&b/firmware.fd"
    disks = {disk.find("target").attrib["dev"]: disk for disk in root.findall("devices/disk")}  # type: ignore[union-attr]
    assert disks["vdb"].find("readonly") is not None
    assert disks["vda"].find("readonly") is None
    plain = parsed(dataclasses.replace(SPEC, kernel=None, initrd=None))
    assert [child.tag for child in plain.findall("os/*")] == ["type", "boot"]


def test_a_lab_host_has_svm_and_other_guests_have_not() -> None:
    def disabled(spec: DomainSpec) -> set[str]:
        return {str(one.get("name")) for one in parsed(spec).iterfind("cpu/feature")}

    nested = dataclasses.replace(SPEC, nested=True)
    assert disabled(SPEC) == set(NOT_IN_TCG)
    assert disabled(SPEC) - disabled(nested) == {"svm"}
