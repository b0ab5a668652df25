#!/bin/bash
# libvirt starts no guest whose fw_cfg file has a comma in its path, although disks with one are fine.
#
# Package: Debian 13's libvirt-daemon-driver-qemu 11.3.0-3+deb13u3 (9.0.0 of Debian 12 does the same), with
#   qemu-system-x86 1:10.0.13+ds-0+deb13u1.
# Behaviour: <sysinfo type='fwcfg'><entry name='opt/…' file='/srv/one,two'/>. libvirt hands the path on as it is;
#   for QEMU a comma begins the next option, and a doubled one is a comma. QEMU refuses "two" and ends. An entry
#   whose text is in the XML fails in the same way.
# Surprise: the XML is valid, and libvirt doubles commas for QEMU, or uses JSON, wherever else paths are given:
#   the disk /srv/one,two works. The error is QEMU's, and its advice ("use two=on") is no help.
# Seen on 2026-11-28:
#     disk=/work/one,two: started
#     fw_cfg file=/work/one,two: Invalid parameter 'two'
#     fw_cfg text one,two: Invalid parameter 'two'
# In the product: lab/hypervisor/domain.xml.j2 passes such entries to QEMU itself.
# Needs root. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh && . ./qemu.sh

fetch all trixie qemu-system-x86=1:10.0.13+ds-0+deb13u1 libvirt-clients=11.3.0-3+deb13u3 \
    libvirt-daemon-driver-qemu=11.3.0-3+deb13u3

truncate -s 1M "$WORK/one,two"

# try WHAT DEVICE ENTRY
try() {
    cat >"$WORK/guest.xml" <<EOF
<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <sysinfo type='fwcfg'>$3</sysinfo>
  <devices>$2</devices>
</domain>
EOF
    local said
    said=$(virsh all 'create /work/guest.xml --paused; domstate guest') || true
    case $said in
        *paused*) said=started ;;
        *"Invalid parameter"*) said=$(grep -o "Invalid parameter .*" <<<"$said" | head -n 1) ;;
        *) cannot "libvirt: $said" ;;
    esac
    echo "$1: $said"
}

disk="<disk type='file'><driver name='qemu' type='raw'/><source file='/work/one,two'/><target dev='sda'/></disk>"
plain="<entry name='opt/org.example/plain'>text</entry>"
found=$(
    try 'disk=/work/one,two' "$disk" "$plain"
    try 'fw_cfg file=/work/one,two' '' "<entry name='opt/org.example/file' file='/work/one,two'/>"
    try 'fw_cfg text one,two' '' "<entry name='opt/org.example/text'>one,two</entry>"
)
echo "$found"

[ "$found" = "disk=/work/one,two: started
fw_cfg file=/work/one,two: Invalid parameter 'two'
fw_cfg text one,two: Invalid parameter 'two'" ] || changed "see above"
