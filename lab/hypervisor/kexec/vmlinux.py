"""The kernel proper inside a bzImage, an ELF file: loaded so, it need not unpack itself while guests wait.

The form is that of Linux, Documentation/arch/x86/boot.rst: setup_sects at 0x1F1, payload_offset at 0x248,
payload_length at 0x24C. Debian's kernels are packed by LZ4 (6.1) or zstd (6.12); Python 3.11 has neither, but
every Debian with systemd has their libraries.
"""

from __future__ import annotations

import ctypes
import gzip
import lzma
import struct

from lab.errors import MachineError

_LZ4_LEGACY, _ZSTD, _XZ, _GZIP, _ELF = (
    b"\x02\x21\x4c\x18",
    b"\x28\xb5\x2f\xfd",
    b"\xfd7zXZ",
    b"\x1f\x8b",
    b"\x7fELF",
)
_LZ4_BLOCK = 8 << 20
"""The most that a block of LZ4's legacy form unpacks to (lz4, doc/lz4_Frame_format.md)."""


def vmlinux(image: bytes) -> bytes:
    """The ELF file in a bzImage. MachineError when it has none, or is packed in an unknown way."""
    if image[0x202:0x206] != b"HdrS":
        raise MachineError("it is no bzImage", where="kernel")
    setup_sects = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sects + 1) * 512 + offset
    packed = image[start : start + length]
    size = struct.unpack_from("<I", packed, length - 4)[0]  # appended by the kernel's build
    found = _unpacked(packed[:-4], size)
    if not found.startswith(_ELF):
        raise MachineError("no ELF file in its payload", where="kernel")
    return found


def _unpacked(packed: bytes, size: int) -> bytes:
    if packed.startswith(_LZ4_LEGACY):
        return _lz4(packed[4:])
    if packed.startswith(_ZSTD):
        return _zstd(packed, size)
    if packed.startswith(_XZ):
        return lzma.LZMADecompressor().decompress(packed)
    if packed.startswith(_GZIP):
        return gzip.decompress(packed)
    raise MachineError(f"unknown packing {packed[:4].hex()}", where="kernel")


def _lz4(blocks: bytes) -> bytes:
    library, whole, at = ctypes.CDLL("liblz4.so.1"), bytearray(), 0
    room = ctypes.create_string_buffer(_LZ4_BLOCK)
    while at + 4 <= len(blocks):
        (length,) = struct.unpack_from("<I", blocks, at)
        block = blocks[at + 4 : at + 4 + length]
        done = library.LZ4_decompress_safe(block, room, len(block), _LZ4_BLOCK)
        if done < 0:
            raise MachineError("its LZ4 payload is damaged", where="kernel")
        whole += room.raw[:done]
        at += 4 + length
    return bytes(whole)


def _zstd(packed: bytes, size: int) -> bytes:
    library, room = ctypes.CDLL("libzstd.so.1"), ctypes.create_string_buffer(size)
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_decompress.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    done = library.ZSTD_decompress(room, size, packed, len(packed))
    if done != size:
        raise MachineError("its zstd payload is damaged", where="kernel")
    return room.raw
