"""What every result holds: the machine card (no host names, users or paths), and the peak memory of a process."""

from __future__ import annotations

import os
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def card() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "niceness": os.nice(0),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "tokenizers")},
    }


def peak_mib() -> float:
    """The most memory this process has held. Linux hands ru_maxrss on to a child that is started, so VmHWM is read."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1024 if platform.system() == "Linux" else used / 2**20


def alive_seconds() -> float:
    """Since this process began, imports and all."""
    import psutil

    return time.time() - psutil.Process().create_time()


if __name__ == "__main__":
    print(card())
