import itertools
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.runlog import Progress, RunLog
from tunesmith.model.load import load_model
from tunesmith.model.optim import Optimizers, adamw
from tunesmith.text.render import Example
from tunesmith.train import loop
from tunesmith.train.objective import next_token
from tunesmith.train.plan_batches import ExampleSource, MicroBatch, collate, cut

ONCE = loop.Settings(1, grad_clip=0.0)


def gradients(model: nn.Module, micros: list[MicroBatch]) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss, _ = loop.backward(model, micros, next_token, ONCE)
    return loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]


def mean_by_hand(model: Any, examples: list[Example]) -> tuple[float, list[torch.Tensor]]:
    """The mean over all trained tokens, one unpadded row after the other."""
    model.zero_grad()
    terms = []
    for e in examples:
        logits = model(torch.tensor([e.ids])).logits[0].log_softmax(-1)
        terms += [-logits[i - 1, e.ids[i]] for i in range(1, len(e.ids)) if e.mask[i]]
    loss = torch.stack(terms).mean()
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.fixture(scope="module")
def double_gpt2(gpt2_dir: Path) -> nn.Module:
    """A real model without dropout in float64, whose layer norms compute in it too."""
    model = load_model(gpt2_dir, torch.float64)
    return model.eval()


def uneven(vocab: int) -> list[Example]:
    sizes = [(3, 1), (12, 9), (7, 2), (20, 1), (5, 4)]  # tokens, of which trained
    return [
        Example([(7 * n + 3 * i) % vocab for i in range(size)], [i >= size - trained for i in range(size)], str(n))
        for n, (size, trained) in enumerate(sizes)
    ]


@given(limit=st.integers(1, 120), pad=st.integers(0, 399), order=st.permutations(range(5)))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_split_into_micro_batches_and_any_padding_gives_the_same_gradient(
    double_gpt2: nn.Module, limit: int, pad: int, order: list[int]
) -> None:
    rows = uneven(400)
    loss, expected = mean_by_hand(double_gpt2, rows)
    found_loss, found = gradients(double_gpt2, cut([rows[i] for i in order], limit, pad))
    assert found_loss == pytest.approx(loss, abs=1e-10)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_a_mean_of_means_would_be_another_gradient(double_gpt2: nn.Module) -> None:
    rows = uneven(400)
    _, expected = mean_by_hand(double_gpt2, rows)
    wrong = [mean_by_hand(double_gpt2, [row])[1] for row in rows]
    means = [torch.stack(parts).mean(0) for parts in zip(*wrong, strict=True)]
    assert max(float((a - b).abs().max()) for a, b in zip(means, expected, strict=True)) > 1e-3


def test_padding_with_the_stop_token_leaves_the_stop_token_trained(bigram: Any) -> None:
    eos = 7
    rows = [Example([1, 2, eos], [False, True, True], "a"), Example([1, 2, 3, 4, eos], [False] * 4 + [True], "b")]
    model = bigram(dtype=torch.float64)
    assert [m.trained_tokens for m in [collate(rows, eos)]] == [3]
    for a, b in zip(gradients(model, cut(rows, 99, eos))[1], gradients(model, cut(rows, 1, 0))[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def source(examples: list[Example], batch: int = 3, limit: int = 100) -> ExampleSource:
    return ExampleSource(examples, batch, limit, 0)


def optimizers(model: nn.Module, rate: float = 0.1) -> Optimizers:
    return Optimizers([adamw(model.parameters(), rate, 0.0)], lambda step: 1.0)


def keeping(steps: list[int]) -> Callable[[loop.State], bool]:
    """A hook that saves nothing and notes each step that it was asked to save."""
    return lambda state: not steps.append(state.step)  # type: ignore[func-returns-value]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_logged_loss_is_the_loss_that_is_optimised(bigram: Any, examples: list[Example], tmp_path: Path) -> None:
    model, log = bigram(), RunLog(tmp_path / "metrics.jsonl")
    data = source(examples, limit=7)
    expected = []
    for step in range(4):
        expected.append(gradients(model, data.step(step))[0])
        model.zero_grad()
        state = loop.State(step=step)
        loop.fit(model, data, optimizers(model), loop.Settings(step + 1), hooks=loop.Hooks(log=log), state=state)
    log.close()
    assert [line["train_loss"] for line in lines(tmp_path / "metrics.jsonl")] == expected
    assert all(
        line.keys() >= {"step", "learning_rate", "grad_norm", "tokens_per_second"} for line in lines(log_path(log))
    )


def log_path(log: RunLog) -> Path:
    return Path(log._file.name)


def test_train_loss_is_the_mean_over_the_tokens_since_the_last_validation(bigram: Any, examples: list[Example]) -> None:
    model, data = bigram(), source(examples)
    losses, tokens = [], []
    found = []

    def objective(model: nn.Module, micro: MicroBatch) -> torch.Tensor:
        nll = next_token(model, micro)
        losses.append(float(nll.detach()))
        tokens.append(micro.trained_tokens)
        return nll

    def validate() -> float:
        found.append((sum(losses) / sum(tokens), len(losses)))
        losses.clear(), tokens.clear()
        return 1.0

    hooks = loop.Hooks(validate=validate)
    means: list[Any] = []
    state = loop.State()
    for end in (2, 4):
        setting = loop.Settings(end, eval_every=2)
        state = loop.fit(model, data, optimizers(model, 0.0), setting, hooks=hooks, objective=objective, state=state)
        means.append(state.train_loss)
    assert means == pytest.approx([mean for mean, _ in found])
    assert [count for _, count in found] == [2, 2]
    assert state.trained_tokens == sum(m.trained_tokens for n in range(4) for m in data.step(n))
    assert state.tokens == sum(m.tokens for n in range(4) for m in data.step(n))


def test_validation_is_the_mean_over_all_trained_tokens_without_dropout(bigram: Any, examples: list[Example]) -> None:
    inner = bigram(dtype=torch.float64)

    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.drop = inner, nn.Dropout(0.9)

        def forward(self, **inputs: Any) -> Any:
            out = self.inner(**inputs)
            out.logits = self.drop(out.logits)
            return out

    model = Dropped().train()
    expected, _ = mean_by_hand(inner, examples)
    assert loop.mean_loss(model, cut(examples, 9, 0)) == pytest.approx(expected, abs=1e-12)
    assert model.training


def test_the_gradient_is_clipped_to_its_limit_and_its_whole_length_is_logged(
    bigram: Any, examples: list[Example]
) -> None:
    model = bigram()
    _, free = loop.backward(model, source(examples).step(0), next_token, loop.Settings(1, grad_clip=0.0))
    unclipped = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in model.parameters()))
    model.zero_grad()
    _, norm = loop.backward(model, source(examples).step(0), next_token, loop.Settings(1, grad_clip=0.01))
    clipped = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in model.parameters()))
    assert norm == pytest.approx(free) == pytest.approx(unclipped)
    assert free > 0.01
    assert clipped == pytest.approx(0.01, rel=1e-3)


def spoiled(bad: set[int]) -> Callable[[nn.Module, MicroBatch], torch.Tensor]:
    """The usual objective, not a number at the calls in `bad`."""
    calls = iter(range(10**6))
    return lambda model, micro: next_token(model, micro) * (math.nan if next(calls) in bad else 1.0)


def test_a_step_without_a_finite_gradient_is_skipped_and_the_next_one_is_not(
    bigram: Any, examples: list[Example], tmp_path: Path
) -> None:
    model, log = bigram(), RunLog(tmp_path / "metrics.jsonl")
    tables = [model.table.detach().clone()]
    hooks = loop.Hooks(sample=lambda step: tables.append(model.table.detach().clone()), log=log)
    setting = loop.Settings(3, sample_every=1)
    state = loop.fit(model, source(examples), optimizers(model), setting, hooks=hooks, objective=spoiled({1}))
    log.close()
    assert [torch.equal(a, b) for a, b in itertools.pairwise(tables)] == [False, True, False]
    assert torch.isfinite(tables[-1]).all()
    assert (state.step, state.skipped) == (3, 0)
    found = lines(tmp_path / "metrics.jsonl")[1]
    assert (found["train_loss"], found["grad_norm"], found["learning_rate"]) == (None, None, 0.0)
    assert state.train_loss is not None
    assert math.isfinite(state.train_loss)


@pytest.mark.parametrize(
    ("bad", "ends"), [(set(range(10)), True), (set(range(9)), False), ({*range(9), *range(10, 19)}, False)]
)
def test_ten_steps_in_a_row_without_a_finite_gradient_end_the_run(
    bigram: Any, examples: list[Example], bad: set[int], ends: bool
) -> None:
    model = bigram()
    run = lambda: loop.fit(  # noqa: E731
        model, source(examples), optimizers(model), loop.Settings(20), objective=spoiled(bad)
    )
    if ends:
        with pytest.raises(ModelError, match="not finite for 10 steps in a row"):
            run()
    else:
        assert run().step == 20


def test_validation_before_any_good_step_and_a_loss_that_is_not_a_number_do_not_break_the_run(
    bigram: Any, examples: list[Example], capsys: pytest.CaptureFixture[str]
) -> None:
    model = bigram()
    values = iter([math.nan, 2.0, math.nan, 1.0])
    saved: list[int] = []
    with Progress("t", 4) as progress:
        hooks = loop.Hooks(validate=lambda: next(values), save=keeping(saved), progress=progress)
        setting = loop.Settings(4, eval_every=1)
        state = loop.fit(model, source(examples), optimizers(model), setting, hooks=hooks, objective=spoiled({0}))
    assert (saved, state.best_step, state.best_val_loss) == ([2, 4], 4, 1.0)
    assert "step 1: train loss nan, val loss nan" in capsys.readouterr().err


def test_training_stops_when_validations_bring_no_gain(bigram: Any, examples: list[Example]) -> None:
    losses = iter([3.0, 2.0, 2.0, 2.5, 1.0])
    setting = loop.Settings(10, eval_every=2, patience=2)
    model = bigram()
    state = loop.fit(
        model, source(examples), optimizers(model), setting, hooks=loop.Hooks(validate=lambda: next(losses))
    )
    assert (state.step, state.best_step, state.best_val_loss) == (8, 4, 2.0)


def test_everything_that_is_due_happens_at_its_step_and_at_the_last(bigram: Any, examples: list[Example]) -> None:
    seen: list[tuple[str, int]] = []
    state = loop.State()
    hooks = loop.Hooks(
        validate=lambda: seen.append(("validate", state.step)) or 1.0,  # type: ignore[func-returns-value]
        save=lambda s: not seen.append(("save", s.step)),  # type: ignore[func-returns-value]
        sample=lambda step: seen.append(("sample", step)),
    )
    model = bigram()
    setting = loop.Settings(7, eval_every=3, save_every=2, sample_every=5)
    loop.fit(model, source(examples), optimizers(model), setting, hooks=hooks, state=state)
    assert [n for what, n in seen if what == "validate"] == [3, 6, 7]
    assert [n for what, n in seen if what == "save"] == [2, 3, 4, 6, 7]
    assert [n for what, n in seen if what == "sample"] == [5, 7]


def test_a_signal_ends_the_step_saves_and_returns_and_the_old_handler_comes_back(
    bigram: Any, examples: list[Example]
) -> None:
    old, saved = signal.getsignal(signal.SIGINT), list[int]()
    model = bigram()
    for number in (signal.SIGINT, signal.SIGTERM):

        def interrupt(step: int, number: int = number) -> None:
            if step == 2:
                os.kill(os.getpid(), number)

        hooks = loop.Hooks(save=keeping(saved), sample=interrupt)
        with loop.stop_signals() as stop:
            setting = loop.Settings(9, sample_every=1)
            state = loop.fit(model, source(examples), optimizers(model), setting, hooks=hooks, stop=stop)
        assert (stop.requested, state.step) == (True, 2)
    assert saved == [2, 2]
    assert signal.getsignal(signal.SIGINT) is old


def test_a_second_ctrl_c_means_now() -> None:
    with loop.stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
