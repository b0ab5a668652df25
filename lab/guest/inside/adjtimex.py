"""adjtimex(2) and its struct timex, as Linux has it on x86-64 and other LP64 systems (linux/timex.h)."""

import os

ADJ_FREQUENCY, ADJ_MAXERROR, ADJ_ESTERROR, ADJ_STATUS = 2, 4, 8, 0x10
ADJ_SETOFFSET, ADJ_NANO, ADJ_TICK = 0x100, 0x2000, 0x4000
STA_UNSYNC = 0x40
TIME_ERROR = 5


class Adjtimex:
    """The system call. ImportError, OSError or AttributeError where it cannot be had: ctypes is not in every
    distribution's smallest Python, so it is not imported before it is wanted."""

    def __init__(self) -> None:
        import ctypes

        class Timex(ctypes.Structure):
            _fields_ = [
                ("modes", ctypes.c_uint),
                ("offset", ctypes.c_long),
                ("freq", ctypes.c_long),
                ("maxerror", ctypes.c_long),
                ("esterror", ctypes.c_long),
                ("status", ctypes.c_int),
                ("constant", ctypes.c_long),
                ("precision", ctypes.c_long),
                ("tolerance", ctypes.c_long),
                ("seconds", ctypes.c_long),
                ("nanoseconds", ctypes.c_long),
                ("tick", ctypes.c_long),
                ("rest", ctypes.c_byte * 128),
            ]

        self.structure, self.pointer, self.errno = Timex, ctypes.byref, ctypes.get_errno
        self.call = ctypes.CDLL(None, use_errno=True).adjtimex
        self.timex = Timex()
        self.argument = ctypes.byref(self.timex)

    def read(self) -> int:
        """Fill `timex` and change nothing. The clock's state; negative when the kernel refuses."""
        self.timex.modes = 0
        return int(self.call(self.argument))

    def adjust(self, **fields: int) -> None:
        """Change what fields["modes"] names; fields that are not given are 0. OSError when the kernel
        refuses."""
        if self.call(self.pointer(self.structure(**fields))) < 0:
            number = self.errno()
            raise OSError(number, os.strerror(number))
