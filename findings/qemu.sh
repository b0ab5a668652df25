#!/bin/bash
# QEMU and libvirt for the findings, after common.sh.

# qemu ROOT NAME ARGUMENTS…: an emulator of ROOT without a guest's software, not yet running, monitor at NAME.
qemu() {
    inside "$1" qemu-system-x86_64 -S -display none -nodefaults -accel tcg -m 64 \
        -qmp "unix:/work/$2,server=on,wait=off" "${@:3}" 2>"$WORK/$2.log" &
    await "$WORK/$2"
}

# qmp NAME COMMAND [ARGUMENTS] [COMMAND ARGUMENTS]…: what QEMU answers, one line of JSON each.
qmp() {
    python3 -c '
import json, socket, sys
link = socket.socket(socket.AF_UNIX)
link.settimeout(60)
link.connect(sys.argv[1])
lines = link.makefile("rw")
lines.readline()
commands = ["qmp_capabilities", "{}", *sys.argv[2:]]
for at in range(0, len(commands), 2):
    arguments = json.loads((commands[at + 1 :] or ["{}"])[0])
    lines.write(json.dumps({"execute": commands[at], "arguments": arguments}) + "\n")
    lines.flush()
    while "event" in (answer := json.loads(lines.readline())):
        pass
    if at:
        print(json.dumps(answer.get("return", answer)))
' "$WORK/$1" "${@:2}"
}

# virsh ROOT COMMANDS: by libvirt's driver inside virsh, so that no daemon is needed.
virsh() {
    mkdir -p "$WORK/libvirt/etc"
    cat >"$WORK/libvirt/etc/qemu.conf" <<'EOF'
stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
dynamic_ownership = 0
remember_owner = 0
user = "root"
group = "root"
EOF
    # Its warnings (of a host's name that cannot be resolved, of root) go to a file.
    LIBVIRT_LOG_OUTPUTS=3:file:/work/libvirt.log inside "$1" virsh -c 'qemu:///embed?root=/work/libvirt' "$2" 2>&1
}
