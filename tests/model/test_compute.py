from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.core.errors import UsageError
from tunesmith.model import compute
from tunesmith.model.adapter import add_lora
from tunesmith.model.compute import Computing, pick_compile, pick_packing
from tunesmith.model.load import load_model
from tunesmith.model.optim import MasterAdamW, Optimizers, adamw

CPU = torch.device("cpu")
LENGTHS = [20, 31]  # one bucket: each kernel compiles once


def nll(computing: Computing, ids: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Of every token of a packed row but the first of each document."""
    firsts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    at = torch.tensor([i for i in range(ids.shape[1] - 1) if i + 1 not in firsts])
    with computing.training(), computing.format():
        return computing.nll(ids, lengths, at, ids[0, at + 1])


def computing_of(model: Any, **changes: Any) -> Computing:
    how: dict[str, Any] = {"dtype": torch.float32, "packed": "documents", "compiled": False, "copies": None}
    return Computing(model, CPU, plain_head=True, **how | changes)


def ids_of(model: Any) -> torch.Tensor:
    return torch.randint(0, 300, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_every_family_of_the_tests_takes_packed_rows_and_has_a_plain_head(any_model_dir: Path) -> None:
    kind, plain, why = pick_packing(load_model(any_model_dir, torch.float32), CPU)
    assert (kind, plain) == ("documents", True)
    assert why.startswith("packed: ")


def test_a_model_that_mixes_neighbours_is_padded_and_says_so(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)

    class Leaking(nn.Module):
        """A convolution over the flat row, as in Mamba and its hybrids."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.nn.functional.pad(x, (0, 0, 1, -1))

    model.model.layers[0].mlp = Leaking()
    assert pick_packing(model, CPU) == (
        None, False, "padded: in a packed row this model's documents change each other",
    )  # fmt: skip


def test_a_model_without_transformers_attention_interface_is_padded(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)

    def refuse(_: str) -> None:
        raise ValueError("no such attention")

    model.set_attn_implementation = refuse
    kind, _, why = pick_packing(model, CPU)
    assert kind is None
    assert "no such attention" in why


def test_a_model_that_cannot_be_computed_at_all_is_not_taken_for_an_unusual_one(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)
    model.model.layers[0].mlp = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        pick_packing(model, CPU)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_compiled_step_has_the_loss_and_the_gradients_of_a_plain_one(llama_dir: Path) -> None:
    found = []
    for compiled in (False, True):
        model = load_model(llama_dir, torch.float32).train()
        how = computing_of(model, compiled=compiled, packed="bucketed" if compiled else "documents")
        how.begin(model, Optimizers([adamw(model.parameters(), 0.1, 0.0)], lambda _: 1.0))
        loss = nll(how, ids_of(model), LENGTHS)
        loss.backward()
        found.append((loss.item(), gradients(model)))
        with how.measuring(), torch.no_grad():
            assert nll(computing_of(model), ids_of(model), LENGTHS).item() == pytest.approx(loss.item(), rel=1e-5)
    (plain, wanted), (fused, grads) = found
    assert fused == pytest.approx(plain, rel=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(grads[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-6)


def test_copies_compute_masters_learn_and_gradients_add_up_in_float32(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32).train()
    optimizers = Optimizers([adamw(model.parameters(), 1e-4, 0.0)], lambda _: 1.0)
    how = computing_of(model, copies=torch.bfloat16, dtype=torch.bfloat16)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    how.begin(model, optimizers)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    for _ in range(2):
        nll(how, ids_of(model), LENGTHS).backward()
    assert {g.dtype for g in gradients(model).values()} == {torch.float32}
    optimizers.step(0)
    (part,) = optimizers.parts
    assert isinstance(part, MasterAdamW)
    assert all(torch.equal(p, part.masters[p].bfloat16()) for p in model.parameters())  # what computes has learnt too
    with optimizers.full_precision():
        moved = {name: (p.detach() - before[name]).abs().max() for name, p in model.named_parameters()}
        assert all(0 < float(by) <= 1.01e-4 for by in moved.values())  # AdamW's first step is the learning rate
    optimizers.raise_precision()
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_frozen_weights_get_their_stored_numbers_back(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)
    stored = {name: p.detach().clone() for name, p in model.named_parameters()}
    tuned = add_lora(model, 4, 8.0, 0.0)
    optimizers = Optimizers([adamw(tuned.parameters(), 1e-4, 0.0)], lambda _: 1.0)
    how = computing_of(model, copies=torch.bfloat16, dtype=torch.bfloat16)
    how.begin(tuned, optimizers)
    assert {p.dtype for p in tuned.parameters()} == {torch.bfloat16}
    optimizers.raise_precision()
    how.end(tuned, llama_dir)
    after = {name.replace(".base_layer.", "."): p for name, p in model.named_parameters() if "lora_" not in name}
    assert after.keys() == stored.keys()
    assert all(torch.equal(after[name], stored[name]) for name in stored)
    assert {p.dtype for p in tuned.parameters()} == {torch.float32}


def test_a_head_that_scales_its_logits_is_asked_itself(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)

    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * super().forward(x)

    head = Scaled(32, model.config.vocab_size, bias=False)
    head.weight = model.lm_head.weight
    model.lm_head = head
    scaled = Computing(model, CPU, torch.float32, "documents", False, None, plain_head=False)
    ids = ids_of(model)
    logits = model(ids[:, :20]).logits[0].log_softmax(-1)
    alone = -logits[torch.arange(19), ids[0, 1:20]].sum()
    found = scaled.nll(ids[:, :20], [20], torch.arange(19), ids[0, 1:20])
    assert found.item() == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("asked", "flops", "chosen", "why"),
    [
        ("auto", 1e12, False, "the run is short"),
        ("auto", 1e13, False, "would be saved"),
        ("auto", 1e16, True, "are saved"),
        ("on", 1.0, True, "on, as asked"),
        ("off", 1e20, False, "off, as asked"),
    ],
)
def test_compiling_is_chosen_where_it_pays_within_the_run(
    asked: Any, flops: float, chosen: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "_missing", lambda _: "")
    found, reason = pick_compile(asked, CPU, flops, lambda: 1e12)
    assert found is chosen
    assert why in reason


def test_without_a_compiler_auto_does_without_and_on_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert pick_compile("auto", CPU, 1e20, lambda: 1e12) == (False, "there is no C++ compiler (g++)")
    with pytest.raises(UsageError, match="no C\\+\\+ compiler"):
        pick_compile("on", CPU, 1e20, lambda: 1e12)


def test_the_blocks_are_the_repeated_layers(any_model_dir: Path) -> None:
    assert len(compute.blocks_of(load_model(any_model_dir, torch.float32))) == 2
    assert compute.blocks_of(nn.Linear(2, 2)) == []


def test_activations_that_are_made_again_give_the_same_gradients(any_model_dir: Path) -> None:
    found = []
    for again in (False, True):
        model = load_model(any_model_dir, torch.float64).train()
        how = computing_of(model, checkpointed=again)
        how.begin(model, Optimizers([adamw(model.parameters(), 0.1, 0.0)], lambda _: 1.0))
        calls: list[int] = []
        inner = next(
            part for name, part in compute.blocks_of(model)[0].named_modules() if "norm" in name or "ln" in name
        )
        inner.register_forward_hook(lambda *_, at=calls: at.append(1))
        torch.manual_seed(0)  # GPT-2 has dropout
        with how.training():
            nll(how, ids_of(model), LENGTHS).backward()
        found.append((len(calls), gradients(model)))
    (once, wanted), (twice, grads) = found
    assert (once, twice) == (1, 2)
    for name, gradient in wanted.items():
        torch.testing.assert_close(grads[name], gradient, rtol=0, atol=1e-12)


def test_what_is_free_is_given_back_above_a_limit(llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[torch.device, float]] = []
    monkeypatch.setattr(compute, "give_back_freed", lambda *what: given.append(what))
    model = load_model(llama_dir, torch.float32)
    for changes in ({}, {"limit_gb": 1.5}):
        with computing_of(model, **changes).training():
            assert not given
    assert given == [(CPU, 1.5)]
