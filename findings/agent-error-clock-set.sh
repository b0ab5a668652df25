#!/bin/bash
# The guest agent answers guest-set-time with an error, and has set the clock.
#
# Packages: Debian 13's qemu-guest-agent 1:10.0.13+ds-0+deb13u1, in a guest of its linux-image-cloud-amd64
#   6.12.117-1 under qemu-system-x86 1:10.0.13+ds-0+deb13u1.
# Behaviour: guest-set-time with a time sets the system's clock and then runs hwclock to bring the RTC after it.
#   In a guest without hwclock (Debian has it in util-linux-extra, on which the agent does not depend) the answer
#   is an error, and the clock stays set.
# Surprise: an error of a command that sets one value is taken for "not set". A caller that tries again later
#   sends a time of its own anew, and is fine; one that falls back to another way, or reports that the clock is
#   still wrong, is not. Agent 7.2 looks for hwclock first and sets nothing.
# Seen on 2026-11-28, the answer shortened:
#     asked for 3600 s ahead
#     answered: child process has failed to set hardware clock to system time: failed to exec '/sbin/hwclock': …
#     afterwards 3600 s ahead
# In the product: such an error decides nothing, the readings do (lab/hypervisor/agent.py, set_time).
# Needs root. Only the guest's clock is set. Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh

fetch host trixie qemu-system-x86=1:10.0.13+ds-0+deb13u1 linux-image-cloud-amd64=6.12.117-1
fetch guest trixie qemu-guest-agent=1:10.0.13+ds-0+deb13u1 "busybox-static=1:1.37.0-6+b9"

cat >"$WORK/root-guest/init" <<'EOF'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t proc none /proc
/bin/busybox stty -F /dev/ttyS1 raw -echo
exec /usr/sbin/qemu-ga -m isa-serial -p /dev/ttyS1 -t /run -f /run/qga.pid
EOF
chmod +x "$WORK/root-guest/init"
cat >"$WORK/pack.sh" <<'EOF'
busybox find . -xdev -path ./work -prune -o -path ./usr/share -prune -o -print |
    busybox cpio -o -H newc >/work/initrd 2>/dev/null
EOF
inside guest sh /work/pack.sh
cp "$WORK"/root-host/boot/vmlinuz-* "$WORK/kernel"

inside host qemu-system-x86_64 -M q35 -accel tcg -cpu max -m 512 -display none -nodefaults -kernel /work/kernel \
    -initrd /work/initrd -append "console=ttyS0 quiet no_timer_check" -serial file:/work/console \
    -chardev socket,id=agent,path=/work/agent,server=on,wait=off -serial chardev:agent &
await "$WORK/agent"

cat >"$WORK/ask.py" <<'EOF'
import json, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
received = b""

def line(limit: float) -> dict:
    """The next that is JSON: a serial line has other things too while a guest boots. TimeoutError."""
    global received
    link.settimeout(limit)
    while True:
        while b"\n" not in received:
            received += link.recv(4096)
        first, received = received.split(b"\n", 1)
        try:
            return json.loads(first)
        except ValueError:
            continue

def ask(name: str, limit: float = 30, **arguments: int) -> dict:
    link.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
    return line(limit)

for turn in range(1, 60):
    try:
        answer = ask("guest-sync", 2, id=turn)
        while answer.get("return") != turn:
            answer = line(2)
        break
    except TimeoutError:
        pass
else:
    sys.exit("the guest's agent does not answer")
before = ask("guest-get-time")["return"]
hour = 3600 * 10**9
print("asked for 3600 s ahead")
answer = ask("guest-set-time", time=before + hour)
print("answered:", answer["error"]["desc"].strip() if "error" in answer else "success")
ahead = ask("guest-get-time")["return"] - before
print("afterwards", "3600 s ahead" if hour <= ahead < hour + 60 * 10**9 else "where it was")
EOF
python3 "$WORK/ask.py" "$WORK/agent" >"$WORK/seen" 2>"$WORK/ask.log" ||
    cannot "$(tail -n 1 "$WORK/ask.log"); $(tail -n 1 "$WORK/console")"
cat "$WORK/seen"

grep -q '^answered: .*hwclock' "$WORK/seen" || changed "the answer"
grep -q '^afterwards 3600 s ahead' "$WORK/seen" || changed "the clock"
