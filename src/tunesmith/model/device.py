"""What this machine is: device, number format, threads, memory."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

GB = 1e9  # bytes; a gigabyte, not a gibibyte
CGROUP = Path("/sys/fs/cgroup")
STATUS = Path("/proc/self/status")
KERNELS = 128  # more than the shapes of a layer's products, which come again in every layer


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_dtype(requested: Literal["auto", "float32", "bfloat16"], device: torch.device) -> tuple[torch.dtype, str]:
    """The format to compute in, and why, in words for the run receipt."""
    fast, kind = fast_bfloat16(device), device.type.upper()
    if requested == "float32":
        return torch.float32, "float32 as asked"
    if requested == "bfloat16":
        slow = "" if fast else f"; this {kind} has no bfloat16 matrix instructions, so expect it to be slow"
        return torch.bfloat16, f"bfloat16 as asked{slow}"
    if fast:
        return torch.bfloat16, f"bfloat16: the {kind} has {fast}"
    return torch.float32, f"float32: the {kind} has no bfloat16 matrix instructions"


def fast_bfloat16(device: torch.device) -> str:
    """The name of the hardware that makes bfloat16 faster than float32, or ''."""
    if device.type == "cuda":
        return "bfloat16 tensor cores" if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    # oneDNN says that it supports bfloat16 on every AVX-512 machine, where it then emulates it: ask the CPU itself.
    found = cpu_facts()
    return next((name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if found.get(flag)), "")


def cpu_facts() -> dict[str, Any]:
    """The instruction sets, name and cores of the CPU; empty on a torch that cannot tell."""
    return dict(getattr(torch.cpu, "get_capabilities", dict)())


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products in `dtype` inside; nothing at all for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def peak_memory_gb(device: torch.device) -> float:
    """The most memory (GB of 1e9 bytes) used since `forget_peak`: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device) / GB)
    if STATUS.is_file():  # Linux hands the ru_maxrss of getrusage(2) on to a child that is started
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / GB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB


def forget_peak(device: torch.device) -> None:
    """Let `peak_memory_gb` begin anew; on a system that cannot, it stays that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # proc_pid_clear_refs(5)
        (STATUS.parent / "clear_refs").write_text("5")


def held_memory_gb(device: torch.device) -> float:
    """What this process holds now (GB of 1e9 bytes): allocated on the GPU, or resident."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device) / GB)
    return float(psutil.Process().memory_info().rss / GB)


def give_back_freed(device: torch.device, limit_gb: float) -> None:
    """Where this process holds more than `limit_gb` of a CPU's memory, return what is free within it to the system.

    glibc keeps freed blocks of up to 32 MB (mallopt(3)) for later ones, and rows of many lengths leave ever more that
    fit none. Nothing is done under a C library without malloc_trim(3), as on macOS.
    """
    if device.type == "cpu" and (trim := _malloc_trim()) and held_memory_gb(device) > limit_gb:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def available_memory_gb(device: torch.device | None = None) -> float:
    """What can still be allocated (GB of 1e9 bytes) on the device; on a CPU, within the container's limit."""
    device = device or pick_device()
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] / GB)
    free = psutil.virtual_memory().available
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()).isdigit():  # else "max": no limit
        free = min(free, int(most) - int(used.read_text()))
    return free / GB


def machine_facts() -> dict[str, Any]:
    """The machine card of receipts and reports. No host names, no users, no paths."""
    device = pick_device()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "device": gpu or "cpu",
        "cpu": cpu_facts().get("cpu_name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / GB, 1),
        "os": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft")},
    }


def cores() -> int:
    """The physical cores that this process may use."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return min(physical, allowed)


def set_up() -> int:
    """One thread a physical core (OMP_NUM_THREADS wins), tiny floats flushed to zero, and few kernels kept. Returns the
    threads.

    Call it before the first tensor work: threads inherit the float mode of the one that starts them, and torch reads
    the sizes of its two stores of kernels once. The kernel of each new shape stays in both, 1,024 of them where nothing
    is said: 0.8 GB after 60 steps of a small base on rows of many lengths (bench/memory.py --kernels).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))
    os.environ.setdefault("LRU_CACHE_CAPACITY", str(KERNELS // 8))  # torch's own, one for each kind of operator
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(cores())
    torch.set_flush_denormal(True)  # a denormal costs an x86 core over 100 cycles, and AdamW's moments decay into them
    return torch.get_num_threads()
