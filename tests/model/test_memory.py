from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.model import memory
from tunesmith.model.adapter import add_lora
from tunesmith.model.compute import Computing, blocks_of
from tunesmith.model.load import load_model
from tunesmith.model.optim import Optimizers, adamw

CPU = torch.device("cpu")
MICRO = memory.Micro([9, 30, 20], 31)
COPIES = {"float32": None, "bfloat16": torch.bfloat16}
METHODS: dict[str, Callable[[Any], nn.Module]] = {
    "full": lambda base: base,
    "lora": lambda base: add_lora(base, 4, 8, 0.0),
}


def optimizers(model: nn.Module) -> Optimizers:
    return Optimizers([adamw(model.parameters(), 1e-3, 0.0)], lambda step: 1.0)


def job(
    path: Path, method: str = "full", dtype: str = "bfloat16", micro: memory.Micro = MICRO, **how: Any
) -> memory.Job:
    model = load_model(path, torch.float32)
    copies = COPIES[dtype]
    computing = Computing(model, CPU, copies or torch.float32, "documents", False, copies, True)
    return memory.Job(model.config, torch.float32, METHODS[method], optimizers, replace(computing, **how), micro)


def real_peak(made: memory.Job) -> int:
    """The same as the dry run, with numbers: bytes alive at the peak of the second step."""
    model = made.computing.model
    trained = made.adapt(model).train()
    parts = made.optimizers(trained)
    made.computing.begin(trained, parts)
    masters = [m for part in parts.parts for m in part.masters.values()]  # type: ignore[attr-defined]
    where = memory.attention.positions(made.micro.lengths, CPU), memory.attention.documents(made.micro.lengths, CPU)
    with memory._Alive() as alive:
        for tensor in (*trained.parameters(), *trained.buffers(), *masters):
            alive.count(tensor.data.untyped_storage())
        for step in range(2):
            alive.peak = alive.now
            for _ in range(1 + made.micro.several):
                with made.computing.training():
                    nll = memory._loss(made.computing, made.micro, where, memory.nll_and_gradient)
                    (nll / 2).backward()
                del nll
            parts.step(step)
    return alive.peak


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("dtype", COPIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_dry_run_holds_what_a_real_step_holds(method: str, dtype: str, several: bool, any_model_dir: Path) -> None:
    made = job(any_model_dir, method, dtype, replace(MICRO, several=several))
    predicted = memory.dry_run(made).total
    assert real_peak(made) == pytest.approx(predicted, rel=0.03)


def test_weights_masters_moments_and_gradients_are_what_they_are_by_hand(llama_dir: Path) -> None:
    count = sum(p.numel() for p in load_model(llama_dir, torch.float32).parameters())
    found = memory.dry_run(job(llama_dir))
    assert found.weights == pytest.approx(2 * count, rel=0.01)  # and the rotary tables
    assert found.masters == 4 * count
    assert found.moments == pytest.approx(8 * count, rel=0.01)  # and a counter each
    adapted = memory.dry_run(job(llama_dir, "lora"))
    assert adapted.weights > 2 * count
    assert adapted.moments < found.moments / 2


@pytest.mark.parametrize("method", METHODS)
def test_layers_that_are_alike_are_told_from_two_of_them(
    method: str, make_model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job(make_model_dir("llama", num_hidden_layers=7), method)
    told = memory.dry_run(made)
    monkeypatch.setattr(memory, "_shorten", lambda model, keep: 1)
    assert told == memory.dry_run(made)


def test_layers_that_differ_are_all_tried(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)
    blocks_of(model)[1].mlp = nn.Linear(32, 32)
    assert memory._shorten(model, 1) == 1
    assert len(blocks_of(model)) == 2


def test_what_takes_memory_is_told_apart(make_model_dir: Callable[..., Path]) -> None:
    path = make_model_dir("llama", num_hidden_layers=8)
    plain = memory.dry_run(job(path))
    assert memory.dry_run(job(path, checkpointed=True)).activations < plain.activations / 3
    twice = memory.dry_run(job(path, micro=memory.Micro([9, 30, 20] * 2, 62)))
    assert twice.activations == pytest.approx(2 * plain.activations, rel=0.02)
    assert twice.weights == plain.weights
    padded = job(path, micro=memory.Micro([30, 30, 29], 31), packed=None, copies=None)
    assert memory.dry_run(padded).total > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of torch's own compiler
def test_compiled_layers_keep_less(llama_dir: Path) -> None:
    eager = memory.dry_run(job(llama_dir))
    compiled = memory.dry_run(job(llama_dir, compiled=True, packed="bucketed"))
    assert compiled.activations < eager.activations
    assert memory.taken_gb(eager.total, job(llama_dir).computing) > eager.total / memory.GB


def test_rows_of_many_lengths_take_kernels_where_products_have_some(llama_dir: Path) -> None:
    half = job(llama_dir).computing
    usual = memory.taken_gb(10**9, half)
    assert usual == pytest.approx(1.1 + 0.11)
    assert memory.taken_gb(10**9, half, True) == pytest.approx(usual + 0.128)
    assert memory.taken_gb(10**9, replace(half, dtype=torch.float32), True) == usual
    assert memory.taken_gb(10**9, replace(half, device=torch.device("cuda")), True) == pytest.approx(1.1)


def test_a_dry_run_leaves_the_model_and_its_config_alone(llama_dir: Path) -> None:
    made = job(llama_dir)
    before = made.base.to_dict()
    memory.dry_run(made)
    assert made.base.to_dict() == before
    assert all(p.device == CPU for p in made.computing.model.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of torch's own compiler
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_the_same_when_activations_are_made_again(
    method: str, compiled: bool, any_model_dir: Path
) -> None:
    gradients = []
    for checkpointed in (False, True):
        base = load_model(any_model_dir, torch.float64)
        torch.manual_seed(0)
        model = METHODS[method](base).double().train()
        computing = Computing(base, CPU, torch.float64, "documents", False, None, True, checkpointed)
        computing.begin(model, optimizers(model))
        for block in blocks_of(model):
            if compiled:
                block.compile(backend="eager")
        ids = torch.randint(0, 300, (1, 59), generator=torch.Generator().manual_seed(1))
        at = torch.arange(0, 50, 2)
        with computing.training():
            computing.nll(ids, [9, 30, 20], at, ids[0, at + 1]).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 4
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
