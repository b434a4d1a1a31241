"""The search with made-up losses, the trials on a small model, and the whole stage with an interruption."""

import hashlib
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.artifact import Artifact, file_hash
from tunesmith.core.errors import Interrupted, ModelError, UsageError
from tunesmith.core.records import pair
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train import find_lr, session, stage
from tunesmith.train.config import TrainConfig, decide
from tunesmith.train.data import Data, build
from tunesmith.train.find_lr import Sweep, Trial, choose, search

ROWS = [pair(f"What is {a} and {b}?", f"It is {a + b}." + " Sure." * (a % 3)) for a in range(4) for b in range(5)]
QUICK: dict[str, Any] = {"max_steps": 3, "batch_size": 4, "dtype": "float32", "sample_every": 0}


def trial(rate: float, *means: float) -> Trial:
    """Groups of ten tokens each."""
    return Trial(rate, np.array([(10 * mean, 10) for mean in means]))


def valley(lowest: float) -> Callable[[float], Trial]:
    return lambda rate: trial(rate, 1 + abs(math.log2(rate / lowest)))


@pytest.mark.parametrize(
    ("lowest", "rates"),
    [
        (1.0, [0.25, 0.5, 1, 2, 4]),
        (2.0, [0.25, 0.5, 1, 2, 4]),
        (4.0, [0.25, 0.5, 1, 2, 4, 8]),
        (16.0, [0.25, 0.5, 1, 2, 4, 8, 16, 32]),
        (1000.0, [0.25, 0.5, 1, 2, 4, 8, 16, 32]),
        (0.25, [0.12, 0.25, 0.5, 1, 2, 4]),
    ],
)
def test_rates_are_tried_by_doubling_and_further_out_while_the_best_is_at_an_end(
    lowest: float, rates: list[float]
) -> None:
    assert [t.rate for t in search(valley(lowest), 1.0, 100.0)] == rates


def test_where_nothing_is_gained_lower_rates_are_tried_and_then_it_is_an_error() -> None:
    tried: list[float] = []

    def run(rate: float) -> Trial:
        tried.append(rate)
        return trial(rate, math.nan if rate > 1 else 2.0)

    with pytest.raises(ModelError, match=r"from 0.03 to 4 the validation loss rose") as caught:
        search(run, 1.0, 2.0)
    assert tried == [0.25, 0.5, 1, 2, 4, 0.12, 0.06, 0.03]
    assert caught.value.fix


def test_the_lower_of_two_rates_is_taken_where_their_difference_is_noise() -> None:
    noisy = [trial(1, 2.0, 2.3, 2.0, 2.1), trial(2, 2.1, 2.0, 2.2, 2.0)]
    assert choose(noisy).rate == 1  # 2.1 against 2.075, by -0.1, 0.3, -0.2, 0.1: a standard error of 0.11
    plain = [trial(1, 2.1, 2.12, 2.1, 2.1), trial(2, 2.0, 2.0, 2.0, 2.0)]
    assert choose(plain).rate == 2


@pytest.mark.parametrize(("above", "taken"), [(1.5, 2), (1.7, 1), (9.0, 1), (math.inf, 1)])
def test_before_an_edge_the_rate_below_the_best_is_taken(above: float, taken: float) -> None:
    trials = [trial(0.5, 3.0, 3.1), trial(1, 1.6, 1.61), trial(2, 1.0, 1.02), trial(4, above, above)]
    assert choose(trials).rate == taken


def test_one_that_diverged_is_never_taken() -> None:
    assert choose([trial(1, math.nan), trial(2, 3.0), trial(4, math.inf)]).rate == 2


@given(st.lists(st.lists(st.floats(0.1, 9), min_size=4, max_size=4), min_size=1, max_size=6))
def test_what_is_taken_is_never_a_higher_rate_than_the_best(means: list[list[float]]) -> None:
    trials = [trial(float(n + 1), *row) for n, row in enumerate(means)]
    best = min(trials, key=lambda t: t.val_loss)
    assert choose(trials).rate <= best.rate


def test_the_table_and_the_facts_name_every_rate() -> None:
    trials = [trial(0.001, 2.0, 2.3), trial(0.002, 2.1, 2.0), trial(0.004, 7.0, 7.0), trial(0.008, math.nan, 1.0)]
    sweep = Sweep(trials, trials[0], 5.0, 20)
    assert sweep.table().splitlines() == [
        "  0.001     2.1500  taken, and not the lowest: see docs/train.md",
        "  0.002     2.0500",
        "  0.004     diverged",
        "  0.008     diverged",
    ]
    losses = {"0.001": 2.15, "0.002": 2.05, "0.004": 7.0, "0.008": None}
    assert json.loads(json.dumps(sweep.facts)) == {
        "taken": 0.001,
        "steps": 20,
        "val_loss_before": 5.0,
        "val_loss": losses,
    }


def state_hash(model: torch.nn.Module) -> str:
    blob = hashlib.sha256()
    for name, value in model.state_dict().items():
        blob.update(name.encode() + value.detach().float().numpy().tobytes())
    return blob.hexdigest()


def prepared(base: Path, values: dict[str, Any], valid: int = 6) -> tuple[Any, ...]:
    renderer = Renderer(Tokenizer.load(base))
    data = Data(build(ROWS[:14], renderer, 128), build(ROWS[14 : 14 + valid], renderer, 128), ROWS[14:])
    config = decide(TrainConfig(**QUICK | values), 14, 10**6)
    model, computing = session.prepare_model(config, base, {"rows": {"train": 14}})
    return config, model, data, computing, None if computing.packed else renderer.tokenizer.pad_id


@pytest.mark.parametrize(
    "values", [{}, {"method": "lora"}, {"optimizer": "muon"}, {"packing": "off"}, {"dtype": "bfloat16"}]
)
def test_trials_leave_the_weights_and_chance_as_they_were(llama_dir: Path, values: dict[str, Any]) -> None:
    config, model, *rest = prepared(llama_dir, values)
    before, chance = state_hash(model), torch.get_rng_state()
    sweep = find_lr.find_lr(config, model, *rest)
    assert state_hash(model) == before
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(p.grad is None for p in model.parameters())
    assert sweep.steps == 3
    assert sweep.taken in sweep.trials
    assert sweep.taken.val_loss < sweep.before


def test_a_trial_is_the_first_steps_of_a_run_at_its_rate(llama_dir: Path) -> None:
    """The same rate twice gives the same loss, and another seed's order another one."""
    found = []
    for seed in (0, 0, 1):
        config, model, *rest = prepared(llama_dir, {"seed": seed})
        found.append(find_lr.find_lr(config, model, *rest).facts)
    assert found[0] == found[1] != found[2]


def test_without_validation_rows_nothing_can_be_judged(llama_dir: Path) -> None:
    config, model, *rest = prepared(llama_dir, {}, valid=0)
    with pytest.raises(UsageError, match="no validation rows"):
        find_lr.find_lr(config, model, *rest)


def test_rates_at_which_the_weights_overflow_are_left_out(llama_dir: Path) -> None:
    config, model, *rest = prepared(llama_dir, {"learning_rate": 1e37, "max_steps": 20, "grad_clip": 0.0})
    before = state_hash(model)
    with pytest.raises(ModelError, match="the validation loss rose"):
        find_lr.find_lr(config, model, *rest)
    assert state_hash(model) == before


def test_the_stage_trains_at_the_rate_found_and_a_resumed_run_looks_for_it_no_more(
    llama_dir: Path, small_set: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(**QUICK | {"find_lr": True})
    inputs = stage.TrainInputs(small_set, str(llama_dir))

    def stopped(*_: Any) -> Any:
        raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "fit_model", stopped)
        with pytest.raises(Interrupted):
            stage.run(config, inputs, tmp_path / "found")
    left = json.loads((tmp_path / "found.partial" / "receipt.json").read_text())
    rate = left["find_lr"]["taken"]
    assert (left["config"]["learning_rate"], left["config"]["find_lr"]) == (rate, False)
    assert f"learning_rate = {rate}" in (tmp_path / "found.partial" / "config.toml").read_text()

    with monkeypatch.context() as patch:
        patch.setattr(stage, "find_lr", stopped)
        found = stage.run(TrainConfig(**left["config"]), inputs, tmp_path / "found", resume=True)
    assert found.facts["find_lr"] == left["find_lr"]

    given_ = stage.run(TrainConfig(**QUICK | {"learning_rate": rate}), inputs, tmp_path / "given")
    name = "model/model.safetensors"
    assert file_hash(found.path / name) == file_hash(given_.path / name)


def test_ctrl_c_while_rates_are_tried_says_that_nothing_is_trained(
    llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, model, *rest = prepared(llama_dir, {})
    monkeypatch.setattr(find_lr.loop, "fit", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match="nothing is trained yet") as caught:
        find_lr.find_lr(config, model, *rest)
    assert "--resume" in caught.value.fix
