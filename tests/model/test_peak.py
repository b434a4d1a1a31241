import json
import socket
from pathlib import Path

import pytest
import torch

from tunesmith.model import peak as module
from tunesmith.model.peak import TRUSTED, Peak, measure, peak

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fastest_product_is_measured_with_its_size(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIZES", {"cpu": (16, 64)})
    flops, size = measure(dtype, CPU, 0.001)
    assert flops > 0
    assert size in (16, 64)


def test_a_rate_is_two_n_cubed_over_the_shortest_time_and_a_product_that_takes_too_long_is_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> float:
        tried.append(len(left))
        return {10: 0.01, 20: 0.02, 400: 0.001}[len(left)]

    monkeypatch.setattr(module, "_product", product)
    monkeypatch.setattr(module, "SIZES", {"cpu": (10, 20, 400)})
    assert measure(torch.float32, CPU, 0.0) == (2 * 20**3 / 0.02, 20)
    assert set(tried) == {10, 20}  # 400: 128 MFLOP at 0.8 MFLOP/s


def test_the_highest_of_the_first_runs_is_kept_and_then_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([(3e9, 512), (5e9, 1024), (4e9, 512), (1e9, 512), (2e9, 512)])
    monkeypatch.setattr(module, "measure", lambda dtype, device: next(rates))
    found = [peak(torch.float32, CPU, tmp_path) for _ in range(TRUSTED + 2)]
    assert [one.flops for one in found] == [3e9, 5e9, 5e9, 5e9, 5e9, 5e9, 5e9]
    assert found[-1].size == 1024
    assert str(found[-1]) == "5 GFLOP/s, the float32 matrix products measured on this machine"
    assert list(tmp_path.iterdir()) == [tmp_path / "peak.json"]
    assert socket.gethostname() not in (tmp_path / "peak.json").read_text()


def test_dtypes_and_thread_counts_are_measured_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([(1e9, 512), (2e9, 512), (3e9, 512)])
    monkeypatch.setattr(module, "measure", lambda dtype, device: next(rates))
    assert peak(torch.float32, CPU, tmp_path).flops == 1e9
    assert peak(torch.bfloat16, CPU, tmp_path).flops == 2e9
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert peak(torch.float32, CPU, tmp_path).flops == 3e9
    assert len(json.loads((tmp_path / "peak.json").read_text())) == 3


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"b": 1}}', "{"])
def test_a_damaged_cache_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(module, "measure", lambda dtype, device: (7e9, 512))
    (tmp_path / "peak.json").write_text(text)
    assert peak(torch.float32, CPU, tmp_path).flops == 7e9
    assert peak(torch.float32, CPU, tmp_path).measured == 2


def test_a_cache_that_cannot_be_written_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", lambda dtype, device: (7e9, 512))
    (tmp_path / "file").touch()
    found = peak(torch.float32, CPU, tmp_path / "file" / "cache")
    assert found == Peak(7e9, 512, "float32", found.machine)
