"""Small files of the kernel's: a part of the programs that read them."""


def text_of(path: str) -> str:
    """Without white space around it; "" for a file that cannot be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def available() -> int:
    """Memory that programs can have, in bytes: MemAvailable of proc(5); 0 when the kernel does not say."""
    for line in text_of("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
