"""Small files of the kernel's: a part of the programs that read them."""


def text_of(path: str) -> str:
    """Without white space around it; "" for a file that cannot be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
