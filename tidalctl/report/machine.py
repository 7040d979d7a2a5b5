"""The machine that something was measured on, as far as the numbers depend on it. Host and user stay out."""

import datetime
import os
import platform
from typing import Any


def describe_machine(torch_version: str) -> dict[str, Any]:
    """Processor, cores that this process may use, memory in bytes, Python, torch (the bundle's), kernel, and the time (UTC)."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "torch": torch_version,
        "kernel": platform.release(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
