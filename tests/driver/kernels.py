"""Guests of some bytes: kernels and a boot sector that do one thing in real mode. They need no image and boot
in a second."""

from __future__ import annotations

import struct


def kernel(code: bytes) -> bytes:
    """By Linux's boot protocol 2.2 (Documentation/arch/x86/boot.rst): the second sector is entered in real
    mode, 0x20 paragraphs above where the first lies. code: at CS:0x80."""
    image = bytearray(8192)
    image[0x1F1] = 1  # sectors of set-up
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x200:0x202] = b"\xeb\x7e"  # jmp to 0x280
    image[0x202:0x208] = b"HdrS\x02\x02"
    image[0x211] = 1  # loaded high
    image[0x280 : 0x280 + len(code)] = code
    return bytes(image)


def filling_its_disk() -> bytes:
    """A disk's first sector. Writes 127 sectors by the BIOS (INT 13h, AH=43h), 64 KiB further on, and so on.
    It is no kernel, because the BIOS has to find the disk."""
    packet = struct.pack("<BBHHHQ", 16, 0, 127, 0, 0x4000, 0)  # size, 0, sectors, offset, segment, LBA
    code = bytes.fromhex(
        "31c08ed8"  # xor ax, ax; mov ds, ax
        "be007d"  # mov si, 0x7d00: the packet
        "8144088000"  # add word [si+8], 128: its LBA
        "b80043"  # mov ax, 0x4300
        "b280"  # mov dl, 0x80: the first disk
        "cd13"  # int 0x13
        "ebf2"  # jmp to `add`
    )
    return (code.ljust(0x100, b"\0") + packet).ljust(510, b"\0") + b"\x55\xaa"


def suspending_to_ram() -> bytes:
    """Writes SLP_TYP 1, which is S3 in QEMU's tables, and SLP_EN to PM1_CNT, at 0x604 (ACPI 6.5, 4.8.3.2)."""
    code = bytes.fromhex(
        "ba0406"  # mov dx, 0x604
        "b80024"  # mov ax, 0x2400
        "ef"  # out dx, ax
        "f4"  # hlt
        "ebfd"  # jmp to `hlt`
    )
    return kernel(code)
