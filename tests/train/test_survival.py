"""What goes wrong inside a run costs as little as it can: memory, signals, numbers that are not finite, disks."""

import json
import math
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tunesmith.core.errors import ModelError, ResourceError
from tunesmith.core.runlog import Progress, RunLog
from tunesmith.model.optim import Optimizers, adamw
from tunesmith.text.render import Example
from tunesmith.train import checkpoint, loop, out_of_memory, rescue
from tunesmith.train.objective import next_token
from tunesmith.train.plan_batches import ExampleSource, MicroBatch, cut, halve, shorten
from tunesmith.train.signals import Stopped

Objective = Callable[[nn.Module, MicroBatch], torch.Tensor]


class Dropped(nn.Module):
    """A bigram model that draws random numbers while it trains, of torch, numpy and Python."""

    def __init__(self, vocab: int = 11, dtype: torch.dtype = torch.float32, share: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        self.table, self.drop = nn.Parameter(torch.randn(vocab, vocab, dtype=dtype)), nn.Dropout(share)

    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: bool = False) -> Any:
        noise = random.gauss(1, 0.01) * np.random.normal(1, 0.01) if self.training and self.drop.p else 1.0
        return SimpleNamespace(logits=self.drop(self.table)[input_ids] * noise)


def source(examples: list[Example], limit: int = 12) -> ExampleSource:
    """Steps of four rows, each in several micro-batches."""
    return ExampleSource(examples, 4, limit, 0)


def optimizers(model: nn.Module, rate: float = 0.1) -> Optimizers:
    return Optimizers([adamw(model.parameters(), rate, 0.0)], lambda step: 1 / (step + 1))


class Run:
    """A model, its optimizers and its folder of checkpoints; `fit` goes on from where the newest one is."""

    def __init__(self, folder: Path, examples: list[Example], **hooks: Any) -> None:
        self.folder, self.examples, self.model = folder, examples, Dropped()
        self.optimizers = optimizers(self.model)
        self.more = hooks
        self.saves: list[int] = []
        self.log: RunLog | None = None

    def save(self, state: loop.State) -> bool:
        self.saves.append(state.step)
        return checkpoint.save(self.folder, self.model, self.optimizers, state, "run")

    def fit(self, objective: Objective = next_token, stop: loop.Stop | None = None, **setting: Any) -> loop.State:
        found = checkpoint.latest(self.folder, "run")
        state = checkpoint.load(found, self.model, self.optimizers) if found else loop.State()
        back = lambda: checkpoint.roll_back(self.folder, self.model, self.optimizers, "run")  # noqa: E731
        hooks = loop.Hooks(**{"save": self.save, "roll_back": back, "log": self.log, **self.more})
        values = loop.Settings(**{"max_steps": 12, "save_every": 4, **setting})
        data = source(self.examples)
        return loop.fit(
            self.model, data, self.optimizers, values, hooks=hooks, objective=objective, state=state, stop=stop
        )

    @property
    def weights(self) -> list[float]:
        return self.model.table.detach().flatten().tolist()  # type: ignore[no-any-return]


# Signals


def at_call(n: int, action: Callable[[], object]) -> Objective:
    """The usual objective, which does something in its n-th micro-batch."""
    calls = iter(range(1, 10**6))

    def objective(model: nn.Module, micro: MicroBatch) -> torch.Tensor:
        if next(calls) == n:
            action()
        return next_token(model, micro)

    return objective


@pytest.mark.parametrize("call", [1, 2, 7, 8, 9, 10, 11, 20])
def test_a_signal_in_any_micro_batch_saves_the_last_whole_step_and_the_resumed_run_is_the_same_to_the_bit(
    examples: list[Example], tmp_path: Path, call: int
) -> None:
    undisturbed = Run(tmp_path / "a", examples)
    micros = sum(len(source(examples).step(n)) for n in range(12))
    whole = undisturbed.fit()
    assert micros > 30

    stopped, seen = Run(tmp_path / "b", examples), 0
    with loop.stop_signals() as stop:
        state = stopped.fit(at_call(call, lambda: os.kill(os.getpid(), signal.SIGTERM)), stop)
    sizes = [len(source(examples).step(n)) for n in range(12)]
    while sum(sizes[: seen + 1]) <= call - 1:
        seen += 1
    last = sum(sizes[: seen + 1]) == call  # in the last micro-batch of a step nothing is left to be dropped
    assert state.step == seen + last
    assert checkpoint.newest_step(tmp_path / "b") == state.step
    assert stopped.model.table.grad is None

    resumed = Run(tmp_path / "b", examples)
    again = resumed.fit()
    assert resumed.weights == undisturbed.weights
    assert again.to_json() | {"seconds": 0} == whole.to_json() | {"seconds": 0}


def test_a_signal_in_a_validation_ends_it_and_the_resumed_run_makes_it_up(
    examples: list[Example], tmp_path: Path
) -> None:
    def run(name: str, stop: loop.Stop | None, at: int = 0) -> Run:
        held, asked = cut(examples, 9, 0), 0

        def validate() -> float:
            nonlocal asked
            asked += 1
            if asked == at and stop:
                stop.request()
            return loop.mean_loss(made.model, held, stop=stop)

        made = Run(tmp_path / name, examples, validate=validate)
        return made

    undisturbed = run("a", None)
    whole = undisturbed.fit(eval_every=3, save_every=0)
    stop = loop.Stop()
    state = run("b", stop, at=2).fit(stop=stop, eval_every=3, save_every=0)
    assert (state.step, state.evaluated) == (6, 3)
    assert checkpoint.newest_step(tmp_path / "b") == 6
    resumed = run("b", None)
    again = resumed.fit(eval_every=3, save_every=0)
    assert resumed.weights == undisturbed.weights
    assert again.to_json() | {"seconds": 0} == whole.to_json() | {"seconds": 0}


def test_a_validation_that_was_stopped_leaves_the_model_as_it_was(examples: list[Example]) -> None:
    model, stop = Dropped(), loop.Stop()
    stop.request()
    with pytest.raises(Stopped):
        loop.mean_loss(model, cut(examples, 9, 0), stop=stop)
    assert model.training


# Memory


def too_small_for(positions: int, error: Callable[[], BaseException]) -> Objective:
    """The usual objective on a machine that has room for micro-batches of so many positions."""

    def objective(model: nn.Module, micro: MicroBatch) -> torch.Tensor:
        nll = next_token(model, micro)
        if micro.input_ids.size > positions:
            if nll.requires_grad:
                nll.backward(retain_graph=True)  # what a failed backward pass may leave behind
            raise error()
        return nll

    return objective


ERRORS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "c++": lambda: RuntimeError("std::bad_alloc"),
    "python": lambda: MemoryError(),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_where_memory_runs_out_micro_batches_are_halved_and_the_result_is_the_same(
    examples: list[Example], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    ends, calls = [], []
    for positions in (10**6, 10):
        model, limit = Dropped(dtype=torch.float64, share=0.0), too_small_for(positions, ERRORS[kind])
        calls.append(0)

        def objective(model: nn.Module, micro: MicroBatch, limit: Objective = limit) -> torch.Tensor:
            calls[-1] += 1
            return limit(model, micro)

        data = source(examples, limit=40)
        state = loop.fit(model, data, optimizers(model), loop.Settings(6), objective=objective)
        ends.append((model.table.detach().clone(), state))
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=0, atol=1e-12)
    assert ends[1][1].train_loss == pytest.approx(ends[0][1].train_loss, abs=1e-12)
    assert ends[1][1].steps_skipped == 0
    assert (ends[0][1].micro_limit, ends[1][1].micro_limit) == (None, 8)
    assert ends[1][1].tokens == ends[0][1].tokens
    said = capsys.readouterr().err.splitlines()
    assert [line.split("in step ")[1].split(".")[0] for line in said] == ["1", "1"], "it is remembered afterwards"
    assert "at most 8 tokens: a little slower, and the same gradient" in said[-1]


def test_any_other_error_is_passed_on(examples: list[Example]) -> None:
    model = Dropped()
    objective = too_small_for(10, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        loop.fit(model, source(examples, 40), optimizers(model), loop.Settings(1), objective=objective)


def test_a_step_that_is_tried_again_draws_the_same_random_numbers(examples: list[Example]) -> None:
    drawn = []

    def objective(model: nn.Module, micro: MicroBatch) -> torch.Tensor:
        drawn.append(float(torch.rand(1)))
        if len(drawn) == 1:
            raise MemoryError
        return next_token(model, micro)

    model = Dropped()
    loop.fit(model, source(examples, 40), optimizers(model), loop.Settings(1), objective=objective)
    assert drawn[0] == drawn[1]


def test_a_resumed_run_remembers_what_fits(examples: list[Example], tmp_path: Path) -> None:
    first = Run(tmp_path, examples)
    first.fit(too_small_for(9, MemoryError), max_steps=4)
    sizes: list[int] = []

    def objective(model: nn.Module, micro: MicroBatch) -> torch.Tensor:
        sizes.append(micro.input_ids.size)
        return next_token(model, micro)

    state = Run(tmp_path, examples).fit(objective)
    assert state.micro_limit is not None
    assert max(sizes) <= 9


@pytest.mark.parametrize("room", [1, 7, 8, 21, 39])
def test_a_row_that_does_not_fit_alone_is_an_error_with_the_longest_that_does(room: int) -> None:
    row = Example([n % 11 for n in range(40)], [n > 3 for n in range(40)], "long")
    short = Example([1, 2], [False, True], "short")
    model, data = Dropped(), ExampleSource([row, short], 2, 10**6, 0)
    with pytest.raises(ResourceError) as caught:
        loop.fit(model, data, optimizers(model), loop.Settings(1), objective=too_small_for(room, MemoryError))
    assert caught.value.what == "one row of 40 tokens does not fit in memory, and a step cannot be cut smaller"
    if room < 8:
        assert "--max-length" not in caught.value.fix
    else:
        found = int(caught.value.fix.removeprefix("--max-length "))
        assert room - 2 <= found <= room, "measured, to a sixteenth of the row"


def test_validation_goes_on_in_halves_and_says_what_fits(examples: list[Example]) -> None:
    model = Dropped()
    expected = loop.mean_loss(model, cut(examples, 40, 0))
    found = loop.mean_loss(model, cut(examples, 40, 0), objective=too_small_for(10, MemoryError))
    assert found == pytest.approx(expected)
    with pytest.raises(ResourceError, match="one row of 9 tokens does not fit"):
        loop.mean_loss(model, cut(examples, 40, 0), objective=too_small_for(7, MemoryError))


def test_a_gradient_that_fits_and_an_optimizer_that_does_not_is_a_resource_error(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Dropped()
    held = optimizers(model)

    def step(*_: object) -> float:
        raise MemoryError

    monkeypatch.setattr(held, "step", step)
    with pytest.raises(ResourceError, match="the state of the optimizer does not fit") as caught:
        loop.fit(model, source(examples), held, loop.Settings(1))
    assert "--method lora" in caught.value.fix


@contextmanager
def address_space(more: int) -> Iterator[None]:
    """No more than `more` bytes beyond what this process has mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the mapped memory of a process is read from /proc")
def test_an_allocator_that_really_refuses_is_understood() -> None:
    rows = [Example([1, 2] * 32, [True] * 64, str(n)) for n in range(256)]
    data, ends = ExampleSource(rows, 256, 10**6, 0), []  # 16,384 positions: 134 MB of logits, and copies of them
    for room in (220e6, 80e9):
        model = Dropped(2048, share=0.0)
        with address_space(int(room)):
            state = loop.fit(model, data, optimizers(model), loop.Settings(1))
        ends.append((state, model.table.detach().clone()))
    assert ends[0][0].micro_limit is not None
    assert ends[1][0].micro_limit is None
    torch.testing.assert_close(ends[0][1], ends[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pad", [0, None], ids=["padded", "packed"])
def test_halves_hold_the_same_rows_and_one_row_is_not_halved(examples: list[Example], pad: int | None) -> None:
    (whole,) = cut(examples, 10**6, pad)
    parts = halve(whole)
    assert len(parts) == 2
    assert sum(p.trained_tokens for p in parts) == whole.trained_tokens
    assert sum(p.tokens for p in parts) == whole.tokens
    assert max(p.input_ids.size for p in parts) < whole.input_ids.size
    for part in parts:
        assert part.packed == whole.packed
        assert part.input_ids.shape == part.labels.shape
    (one,) = halve(cut(examples[:1], 10**6, pad)[0])
    assert one.tokens == len(examples[0].ids)
    longest = cut(examples[-1:], 10**6, pad)[0]
    assert shorten(longest, 4).input_ids.tolist() == [examples[-1].ids[-4:]]
    assert shorten(longest, 99).tokens == longest.tokens


def test_only_what_is_larger_than_the_limit_is_halved(examples: list[Example]) -> None:
    micros = cut(examples, 18, 0)
    found = out_of_memory.within(micros, 10)
    assert all(micro.input_ids.size <= 10 or len(micro.lengths) == 1 for micro in found)
    assert sum(micro.tokens for micro in found) == sum(micro.tokens for micro in micros)
    assert [m for m in found if any(m is old for old in micros)], "what is small enough stays"
    assert out_of_memory.within(micros, None) == micros


# Gradients and weights that are not finite


def test_ten_bad_steps_in_a_row_go_back_to_the_last_good_checkpoint_with_half_the_learning_rate(
    examples: list[Example], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates: list[tuple[int, float]] = []

    def observe(state: loop.State, facts: dict[str, float]) -> None:
        rates.append((state.step, facts["learning_rate"]))

    run = Run(tmp_path / "c", examples, observe=observe)
    run.log = RunLog(tmp_path / "metrics.jsonl")
    micros = [len(source(examples).step(n)) for n in range(30)]
    first_bad, calls = sum(micros[:9]), iter(range(10**6))

    def objective(model: nn.Module, micro: MicroBatch) -> torch.Tensor:
        bad = next(calls) in range(first_bad, first_bad + sum(micros[9:19]))
        return next_token(model, micro) * (math.nan if bad else 1.0)

    with Progress("t", 24) as progress:
        run.more["progress"] = progress
        state = run.fit(objective, max_steps=24)
        assert progress.done == 24
    run.log.close()
    assert (state.step, state.rollbacks, state.steps_skipped, state.skipped) == (24, 1, 10, 0)
    steps = [step for step, _ in rates]
    assert steps == [*range(1, 20), *range(9, 25)], "steps 10 to 19 were bad, and 8 was the last that was saved"
    before = dict(rates[:9])
    assert rates[19] == (9, pytest.approx(before[9] / 2))
    assert [rate for _, rate in rates[9:19]] == [0.0] * 10
    assert (
        "for 10 steps in a row (step 19): back to the checkpoint of step 8, with 0.5 of the" in capsys.readouterr().err
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"step": 8, "rolled_back_from": 19, "learning_rate_scale": 0.5} in lines
    assert sum(line.get("not_finite") == ["train_loss", "grad_norm"] for line in lines) == 10
    assert all(math.isfinite(x) for x in run.weights)


def test_the_third_time_is_the_end(examples: list[Example], tmp_path: Path) -> None:
    steps: list[int] = []
    run = Run(tmp_path, examples, observe=lambda state, facts: steps.append(state.step))
    with pytest.raises(
        ModelError, match=r"10 steps in a row \(step 1\d\), even with 0.25 of the learning rate"
    ) as caught:
        run.fit(lambda model, micro: next_token(model, micro) * (math.nan if len(steps) > 4 else 1.0), max_steps=24)
    assert caught.value.fix == "a lower --learning-rate, or --dtype float32"
    assert (run.saves, checkpoint.newest_step(tmp_path)) == ([4], 4)


def test_a_checkpoint_saved_between_bad_steps_is_not_gone_back_to(examples: list[Example], tmp_path: Path) -> None:
    run = Run(tmp_path, examples)
    saved = [loop.State(step=2), loop.State(step=4, skipped=1), loop.State(step=6, skipped=3)]
    assert all(checkpoint.save(tmp_path, run.model, run.optimizers, state, "run") for state in saved[:2])
    state = checkpoint.roll_back(tmp_path, run.model, run.optimizers, "run")
    assert state is not None
    assert state.step == 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]


def test_weights_that_overflow_are_not_saved_and_not_kept(
    examples: list[Example], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def overflow(state: loop.State, facts: dict[str, float]) -> None:
        if state.step == 8 and not state.rollbacks:
            with torch.no_grad():
                run.model.table[0, 0] = math.inf

    run = Run(tmp_path, examples, observe=overflow)
    state = run.fit()
    assert (state.step, state.rollbacks) == (12, 1)
    assert "weights overflowed (step 8): back to the checkpoint of step 4" in capsys.readouterr().err
    assert all(math.isfinite(x) for x in run.weights)
    with torch.no_grad():
        run.model.table[0, 0] = math.nan
    assert not checkpoint.save(tmp_path, run.model, run.optimizers, loop.State(step=99), "run")
    assert "checkpoint at step 99 was not saved: its weights are not finite" in capsys.readouterr().err


def test_weights_that_overflow_in_the_last_step_are_no_result(examples: list[Example]) -> None:
    model = Dropped()

    def overflow(state: loop.State, facts: dict[str, float]) -> None:
        if state.step == 3:
            with torch.no_grad():
                model.table[0, 0] = math.inf

    with pytest.raises(ModelError, match=r"weights overflowed \(step 3\)"):
        loop.fit(model, source(examples), optimizers(model), loop.Settings(3), hooks=loop.Hooks(observe=overflow))


def test_a_loss_that_is_infinite_with_a_finite_gradient_is_skipped_too(examples: list[Example]) -> None:
    model, before = Dropped(), Dropped().table.detach()
    objective = lambda model, micro: next_token(model, micro) + math.inf  # noqa: E731
    state = loop.fit(model, source(examples), optimizers(model), loop.Settings(2), objective=objective)
    assert state.steps_skipped == 2
    assert torch.equal(model.table.detach(), before)


# Saving


def test_a_best_that_could_not_be_saved_is_not_the_best(examples: list[Example]) -> None:
    losses, disk = iter([3.0, 2.0, 2.5, 2.4]), iter([True, False, True, True])
    asked: list[int] = []

    def save(state: loop.State) -> bool:
        asked.append(state.step)
        return next(disk)

    model = Dropped()
    hooks = loop.Hooks(validate=lambda: next(losses), save=save)
    state = loop.fit(model, source(examples), optimizers(model), loop.Settings(4, eval_every=1), hooks=hooks)
    assert asked == [1, 2, 3, 4]
    assert (state.best_step, state.best_val_loss) == (4, 2.4)


def test_a_best_at_the_last_step_needs_no_disk(examples: list[Example]) -> None:
    losses, model = iter([3.0, 2.0]), Dropped()
    hooks = loop.Hooks(validate=lambda: next(losses), save=lambda state: state.step == 1)
    state = loop.fit(model, source(examples), optimizers(model), loop.Settings(2, eval_every=1), hooks=hooks)
    assert (state.best_step, state.best_val_loss) == (2, 2.0)


@pytest.mark.parametrize(("cost", "expected"), [(0.0, [6, 12]), (3.0, [6]), (0.5, [6, 12])])
def test_a_checkpoint_is_due_each_minute_but_takes_no_more_than_a_fiftieth_of_the_time(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch, cost: float, expected: list[int]
) -> None:
    now, saved = [0.0], list[int]()
    monkeypatch.setattr(rescue, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def save(state: loop.State) -> bool:
        saved.append(state.step)
        now[0] += cost
        return True

    def observe(state: loop.State, facts: dict[str, float]) -> None:
        now[0] += 10.0

    model = Dropped()
    hooks = loop.Hooks(save=save, observe=observe)
    loop.fit(model, source(examples), optimizers(model), loop.Settings(16), hooks=hooks)
    assert saved == expected


# What is said of a step


def test_each_step_is_observed_once_with_its_facts_and_what_is_added_to_them_is_logged(
    examples: list[Example], tmp_path: Path
) -> None:
    seen: list[tuple[int, dict[str, float]]] = []

    def observe(state: loop.State, facts: dict[str, float]) -> None:
        seen.append((state.step, dict(facts)))
        facts["mfu"] = 0.5

    model, log = Dropped(), RunLog(tmp_path / "metrics.jsonl")
    data = source(examples)
    loop.fit(model, data, optimizers(model), loop.Settings(3), hooks=loop.Hooks(observe=observe, log=log))
    log.close()
    assert [step for step, _ in seen] == [1, 2, 3]
    names = {"train_loss", "learning_rate", "grad_norm", "tokens", "trained_tokens", "tokens_per_second"}
    names |= {"positions", "pairs"}
    assert {frozenset(facts) for _, facts in seen} == {frozenset(names | {"seconds", "wait_seconds"})}
    for n, (_, facts) in enumerate(seen):
        assert facts["tokens"] == sum(m.tokens for m in data.step(n))
        assert facts["trained_tokens"] == sum(m.trained_tokens for m in data.step(n))
        assert 0 <= facts["wait_seconds"] < facts["seconds"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": step, **facts, "mfu": 0.5} for step, facts in seen]
