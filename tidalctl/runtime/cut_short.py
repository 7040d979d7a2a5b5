"""One clear line where a mapped file is truncated under a running process.

The kernel answers a read past the new end with SIGBUS, at the instruction that reads. No Python can run there: its handlers run
later, and the instruction would fault again for ever. So the handler is a few machine instructions, which write one line and leave
with exit code 2 (a bad artifact). A process that has set a handler of its own keeps it. Tried on x86_64 only.
"""

import ctypes
import mmap
import platform
import signal
import struct

LINE = b"\nerror: a mapped weights file was cut short while it was in use\nhint: compile the bundle again\n"
_handlers: list[mmap.mmap] = []  # they must outlive everything


def end_clearly() -> bool:
    """Install it. False where this processor has no such handler here, or where somebody else handles SIGBUS."""
    code = _code(platform.machine())
    if code is None or _handlers or signal.getsignal(signal.SIGBUS) != signal.SIG_DFL:
        return False
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if libc.mprotect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        return False  # a hardened system: the kernel's own word for it remains
    _handlers.append(memory)
    libc.signal(signal.SIGBUS, address)
    return True


def _code(machine: str) -> bytes | None:
    """write(2, LINE, len(LINE)) and exit_group(2), in the processor's own words, with the line behind them."""
    if machine == "x86_64":
        return (
            b"\xbf" + struct.pack("<i", 2)  # mov edi, 2
            + b"\x48\x8d\x35" + struct.pack("<i", 24)  # lea rsi, [rip + 24]: the line
            + b"\xba" + struct.pack("<i", len(LINE))  # mov edx, len
            + b"\xb8" + struct.pack("<i", 1) + b"\x0f\x05"  # mov eax, write; syscall
            + b"\xbf" + struct.pack("<i", 2)  # mov edi, 2
            + b"\xb8" + struct.pack("<i", 231) + b"\x0f\x05"  # mov eax, exit_group; syscall
            + LINE
        )  # fmt: skip
    if machine == "aarch64":
        words = (
            _mov(0, 2), 0x100000E1, _mov(2, len(LINE)), _mov(8, 64), 0xD4000001,  # adr x1, +28: the line; write; svc
            _mov(0, 2), _mov(8, 94), 0xD4000001,  # exit_group; svc
        )  # fmt: skip
        return struct.pack("<8I", *words) + LINE
    return None


def _mov(register: int, value: int) -> int:
    return 0xD2800000 | value << 5 | register
