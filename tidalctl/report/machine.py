"""The machine that something was measured on, as far as the numbers depend on it. Host and user stay out."""

import datetime
import os
import platform
from typing import Any

# what decides how fast matrices are multiplied, in Linux's words: bfloat16 takes ten times as long where there is AVX2 alone
_VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "i8mm", "bf16")


def describe_machine(torch_version: str) -> dict[str, Any]:
    """Processor, its vector instructions, cores that may be used, memory in bytes, Python, torch (the bundle's), kernel, time (UTC)."""
    return {
        "cpu": _of_cpu("model name") or platform.machine(),
        "vectors": [name for name in _VECTORS if name in (_of_cpu("flags") or _of_cpu("Features")).split()],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "torch": torch_version,
        "kernel": platform.release(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _of_cpu(field: str) -> str:
    """A field of the first processor; empty where the kernel does not tell it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == field:
                    return value.strip()
    except OSError:
        pass
    return ""
