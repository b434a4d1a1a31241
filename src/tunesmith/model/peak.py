"""How fast this machine multiplies matrices, measured: what MFU is a share of.

The best of many products of random matrices (zeros are faster on a GPU: they switch fewer wires). What other processes
take at the time can only lower it, so the first few runs on a machine each measure, and the highest is kept.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_json, write_json
from tunesmith.model.device import cpu_facts

SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}  # n of n x n products: small ones first, they may be slow
SECONDS = 0.1  # a size, besides one product to warm up
SLOW = 0.4  # seconds: a larger product that would take longer is not tried
TRUSTED = 5  # measurements, after which the highest is taken without another


@dataclass(frozen=True)
class Peak:
    """`flops` a second in products of `dtype` by n x n matrices, n = `size`: the best of `measured` runs."""

    flops: float
    size: int
    dtype: str
    machine: str
    measured: int = 1

    def __str__(self) -> str:
        return f"{self.flops / 1e9:,.0f} GFLOP/s, the {self.dtype} matrix products measured on this machine"


def peak(dtype: torch.dtype, device: torch.device, cache: Path) -> Peak:
    """The highest measurement in `dtype` of this machine, number of threads and torch, kept in `cache`/peak.json."""
    name, machine = str(dtype).removeprefix("torch."), _machine(device)
    key = f"{name} on {machine}"
    known = _read(cache / "peak.json")
    before = known.get(key, Peak(0.0, 0, name, machine, 0))
    if before.measured >= TRUSTED:
        return before
    flops, size = max((before.flops, before.size), measure(dtype, device))
    found = Peak(flops, size, name, machine, before.measured + 1)
    with suppress(OSError):  # a cache that cannot be written costs a measurement, not a run
        cache.mkdir(parents=True, exist_ok=True)
        new = cache / f"peak.{os.getpid()}.new"
        write_json(new, {name: asdict(one) for name, one in (known | {key: found}).items()})
        os.replace(new, cache / "peak.json")
    return found


@torch.no_grad()
def measure(dtype: torch.dtype, device: torch.device, seconds: float = SECONDS) -> tuple[float, int]:
    """(FLOP a second, n) of the fastest n x n product: each size for `seconds`, but none that is too slow here."""
    best, best_size = 0.0, 0
    for n in SIZES[device.type]:
        if best and 2 * n**3 / best > SLOW:
            break
        left = torch.randn(n, n, device=device).to(dtype)
        right, out = torch.randn(n, n, device=device).to(dtype), torch.empty(n, n, dtype=dtype, device=device)
        _product(left, right, out)
        end = time.perf_counter() + seconds
        while True:
            rate = 2 * n**3 / _product(left, right, out)
            if rate > best:
                best, best_size = rate, n
            if time.perf_counter() > end:
                break
    return best, best_size


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> float:
    """Seconds of one product, from an idle device to an idle device."""
    began = time.perf_counter()
    torch.mm(left, right, out=out)
    if out.is_cuda:
        torch.cuda.synchronize(out.device)
    return time.perf_counter() - began


def _machine(device: torch.device) -> str:
    """What the peak depends on; no host name."""
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {precision}"
    name, threads = cpu_facts().get("cpu_name") or "cpu", torch.get_num_threads()
    return f"{name}, {threads} threads, torch {torch.__version__}, {precision}"


def _read(file: Path) -> dict[str, Peak]:
    """What is known; nothing, where the file is missing, damaged, or of another version."""
    with suppress(OSError, DataError, TypeError, AttributeError):
        return {key: Peak(**one) for key, one in read_json(file).items()}
    return {}
