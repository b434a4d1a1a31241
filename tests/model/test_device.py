import getpass
import json
import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tunesmith.model import device
from tunesmith.model.device import (
    autocast,
    available_memory_gb,
    cores,
    fast_bfloat16,
    forget_peak,
    give_back_freed,
    held_memory_gb,
    machine_facts,
    peak_memory_gb,
    pick_device,
    pick_dtype,
    set_up,
)

CPU = torch.device("cpu")


def test_the_device_is_the_gpu_where_there_is_one() -> None:
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "AMX"),
        ({"avx512_bf16": True, "amx_bf16": False}, "AVX512-BF16"),
        ({"avx512_f": True}, ""),
        ({}, ""),
    ],
)
def test_auto_takes_bfloat16_only_where_the_cpu_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, bool], name: str
) -> None:
    monkeypatch.setattr(device, "cpu_facts", lambda: flags)
    assert fast_bfloat16(CPU) == name
    dtype, why = pick_dtype("auto", CPU)
    assert dtype == (torch.bfloat16 if name else torch.float32)
    assert (name or "no bfloat16 matrix instructions") in why
    assert pick_dtype("float32", CPU) == (torch.float32, "float32 as asked")
    dtype, why = pick_dtype("bfloat16", CPU)
    assert dtype == torch.bfloat16
    assert ("slow" in why) == (not name)


def test_a_torch_that_cannot_tell_gives_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert pick_dtype("auto", CPU)[0] == torch.float32


def test_autocast_is_nothing_in_float32_and_halves_products_in_bfloat16() -> None:
    one = torch.ones(2, 2)
    with autocast(torch.float32, CPU):
        assert (one @ one).dtype == torch.float32
    with autocast(torch.bfloat16, CPU):
        assert (one @ one).dtype == torch.bfloat16


def test_peak_memory_grows_by_what_is_allocated() -> None:
    before = peak_memory_gb(CPU)
    block = torch.ones(60_000_000)  # 0.24 GB
    grown = peak_memory_gb(CPU) - before
    assert block.sum() == 60_000_000
    assert 0 <= grown < 1
    assert peak_memory_gb(CPU) >= 0.24


@pytest.mark.skipif(device._malloc_trim() is None, reason="a C library that has no malloc_trim")
def test_freed_memory_is_given_back_where_more_is_held_than_there_should_be() -> None:
    blocks = [torch.ones(12_500) for _ in range(6000)]  # 50 KB each, 0.3 GB: too small to be mapped one by one
    last = blocks.pop()
    full = held_memory_gb(CPU)
    blocks.clear()  # the last one keeps the heap from shrinking
    give_back_freed(CPU, 1e9)
    assert held_memory_gb(CPU) > full - 0.05
    give_back_freed(CPU, full - 0.1)
    assert held_memory_gb(CPU) < full - 0.2
    assert last.sum() == 12_500


def test_a_peak_that_is_forgotten_begins_anew() -> None:
    with mmap.mmap(-1, 240_000_000) as block:  # not malloc's, which may keep what is freed
        block.write(bytes(240_000_000))
        high = peak_memory_gb(CPU)
    forget_peak(CPU)
    assert held_memory_gb(CPU) <= peak_memory_gb(CPU) < high - 0.1


def test_available_memory_is_positive_and_within_the_limit_of_the_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert available_memory_gb() > 0
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    free = available_memory_gb(CPU)
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("3000000\n")
    assert available_memory_gb(CPU) == 0.002
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory_gb(CPU) == pytest.approx(free, rel=0.5)


def test_the_machine_card_says_what_a_reader_needs_and_nothing_private() -> None:
    facts = machine_facts()
    assert set(facts) == {
        *("device", "cpu", "cores", "memory_gb", "os", "python"),
        *("torch", "transformers", "peft"),
    }
    assert all(facts.values())
    text = json.dumps(facts)
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert getpass.getuser() not in text or len(getpass.getuser()) < 3


def test_few_kernels_are_kept_unless_the_user_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "")  # so that it is undone
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    threads = torch.get_num_threads()
    set_up()
    torch.set_flush_denormal(False)
    assert (os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], os.environ["LRU_CACHE_CAPACITY"]) == ("128", "7")
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(not fast_bfloat16(CPU), reason="without bfloat16 instructions these products need no kernels")
def test_many_shapes_take_less_memory_with_few_kernels() -> None:
    program = """
import psutil, torch
from tunesmith.model.device import set_up
set_up()
weight, held = torch.ones(64, 64, dtype=torch.bfloat16), []
for n in range(300):
    torch.ones(n + 1, 64, dtype=torch.bfloat16) @ weight
    held.append(psutil.Process().memory_info().rss)
print(held[-1] - held[9])
"""
    few = {name: value for name, value in os.environ.items() if not name.endswith("_CACHE_CAPACITY")}
    many = few | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "1024"}
    grown = [
        int(subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True, text=True).stdout)
        for env in (few, many)
    ]
    assert grown[0] < 0.7 * grown[1]


def test_threads_are_the_physical_cores_unless_the_user_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert set_up() == before  # OMP_NUM_THREADS is set in every test
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert set_up() == cores() >= 1
        tiny = torch.tensor([1e-30]) * torch.tensor([1e-10])
        assert tiny.item() == 0.0
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
