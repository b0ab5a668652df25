"""transcoding: ffmpeg in the guest makes H.264 of a live stream of JPEG pictures, at the stream's own rate.

The stream comes from the host and goes back there, so it goes on during a pause: afterwards all missed
frames wait in the connection. With R times the power that the rate needs, a pause P is caught up with in
P / (R - 1), and frames are less late than L after (P - L) / (R - 1). How much R is, is measured in the guest
when it is set up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupCommand, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.prediction import OUTAGE_SLACK_NS, CatchUp, Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.hls import PACKAGES
from lab.core.workload.shipped.option_values import duration_ns
from lab.core.workload.spec import WorkloadExpect

PORT, SOURCE_PORT = 5010, 5011
ENDED = "transcoder ended"
LATE = (50 * NS_PER_MS, 60 * NS_PER_S)
"""From and to, in ns."""

FRAMES_PER_S = 5
FOLDER = "/var/lib/transcode"

_ENCODE = (
    f"-threads 1 -f mjpeg -framerate {FRAMES_PER_S} -i INPUT -threads 1 -c:v libx264 -preset ultrafast "
    f"-tune zerolatency -x264-params aud=1 -g {2 * FRAMES_PER_S} -f h264 -flush_packets 1 OUTPUT"
)


def _encode(source: str, target: str) -> str:
    return _ENCODE.replace("INPUT", source).replace("OUTPUT", target)


# systemd starts ffmpeg for a connection, which is then its input and output.
SOCKET = f"""\
[Unit]
Description=Transcoder
[Socket]
ListenStream={PORT}
Accept=yes
"""
TRANSCODER = f"""\
[Unit]
Description=Transcoder
CollectMode=inactive-or-failed
[Service]
ExecStart=/usr/bin/ffmpeg -nostdin -loglevel warning -fflags nobuffer -probesize 4096 \\
    {_encode("pipe:0", "pipe:1")}
StandardInput=socket
StandardOutput=socket
StandardError=journal
"""
SOURCE_SOCKET = f"""\
[Unit]
Description=The pictures of the stream
[Socket]
ListenStream={SOURCE_PORT}
Accept=yes
"""
SOURCE = f"""\
[Unit]
Description=The pictures of the stream
CollectMode=inactive-or-failed
[Service]
ExecStart=/bin/cat {FOLDER}/source.mjpeg
StandardInput=socket
StandardOutput=socket
StandardError=journal
"""

MAKE = (
    f"mkdir -p {FOLDER} && ffmpeg -nostdin -loglevel error -y -f lavfi "
    f"-i testsrc2=size=160x90:rate={FRAMES_PER_S} -t 8 -c:v mjpeg -q:v 5 {FOLDER}/source.mjpeg"
)
MEASURED = f"{FOLDER}/speed"
# Through the service itself, as fast as it goes: ffmpeg is ten times as fast from a file and into none.
MEASURE = f"""\
import socket, threading, time
with open("{FOLDER}/source.mjpeg", "rb") as file:
    source = file.read()
link = socket.create_connection(("127.0.0.1", {PORT}))
def send():
    for _ in range(8):
        link.sendall(source)
threading.Thread(target=send, daemon=True).start()
began, times, rest = time.monotonic(), [], b""
while len(times) < 200 and time.monotonic() < began + 40 and (data := link.recv(1 << 16)):
    joined = rest + data
    times += [time.monotonic()] * joined.count(b"\\0\\0\\0\\1\\x09")
    rest = joined[-4:]
# The first frames take ffmpeg's start as well.
first, last = times[len(times) // 4], times[-1]
with open("{MEASURED}", "w") as file:
    print(f"fps={{(len(times) - 1 - len(times) // 4) / max(last - first, 0.001):.2f}}", file=file)
"""


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    duration_ns(options, "late", *LATE)
    units = {
        "transcode.socket": SOCKET,
        "transcode@.service": TRANSCODER,
        "source.socket": SOURCE_SOCKET,
        "source@.service": SOURCE,
    }
    setup = SetupSpec(
        packages=PACKAGES,
        files=(
            *(SetupFile(f"/etc/systemd/system/{name}", content=text) for name, text in units.items()),
            SetupFile("/usr/local/lib/transcode-measure.py", content=MEASURE),
        ),
        run=(
            SetupCommand(MAKE),
            SetupCommand("systemctl daemon-reload && systemctl start transcode.socket"),
            SetupCommand("timeout 55 python3 /usr/local/lib/transcode-measure.py"),
        ),
        services=(
            SetupService("source.socket"),
            SetupService("transcode.socket", Ready(ReadyKind.COMMAND, f"grep -q :{PORT:04X} /proc/net/tcp*")),
        ),
    )
    return (WorkloadGuest("media-0", setup),)


SLOWER, FASTER = 4, 1.5
"""So many times is it slower, or faster, than it was when it was measured: inside the guest, without the
network to the host, and before the host became more busy, or less. Three times slower was seen."""


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold | CatchUp, ...]:
    text = config.get("media-0", "")
    speed = re.search(r"^fps=([0-9.]+)\s*\Z", text, re.MULTILINE)
    rate = re.search(r"-framerate ([0-9]+)", text)
    if speed is None or rate is None or not float(speed[1]) or not float(rate[1]):
        return ()  # it was too fast to be measured
    power, late = float(speed[1]) / float(rate[1]), duration_ns(options, "late", *LATE)
    slow, fast = power / SLOWER, power * FASTER
    because = f"{rate[1]} frames/s come, and the guest made {speed[1]} when it was set up"
    # The outage goes on for (P - late) / (R - 1) after the pause P: longer than the slack from here on.
    low, high = (late + max(0, round(OUTAGE_SLACK_NS * (one - 1))) for one in (slow, fast))
    outage = Threshold("outage", Interval(low, high if fast > 1 else late), because)
    return outage, CatchUp((slow, fast), late, because)


TRANSCODING = ShippedWorkload(
    name="transcoding",
    about="ffmpeg makes H.264 of a live stream of 5 pictures a second",
    guests=_guests,
    client="transcoding",
    period_ns=NS_PER_S // FRAMES_PER_S,
    expect=WorkloadExpect(beyond_pause_ns=5 * NS_PER_S, never=(ENDED,)),
    config=f"cat /etc/systemd/system/transcode@.service {MEASURED}",
    predict=_predict,
    options=(("late", "1s"),),
)
