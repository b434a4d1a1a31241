"""Whether the defaults learn: against a small sweep around them, and LoRA against full fine-tuning.

    python bench/learning.py [CASE ...] [--rows 200] [--base DIR] [--lora-rank 2] [--ranks 16 64] [--seeds 3]
                             [--changes "rate x0.5" ...] [--method full lora]

CASES are demo (the demo's own set) and lamini (lamini_docs.jsonl; left out where ../shared/data is absent). The base is
the embedded one (two million parameters), or DIR, as `tunesmith pretrain` makes them. So many training rows are used (0
for all), and batch and steps are decided from them; every validation row counts.

For full and LoRA: the best validation loss (nats a trained token) at the defaults with three seeds, and with one at a
quarter, half, twice and four times the learning rate, at half and twice the batch and the epochs, and for LoRA with
another alpha and with Muon. The defaults hold where the best of these is below the mean of the seeds by no more than
their spread (highest less lowest): that is what a seed alone changes. Then LoRA's loss as a ratio to that of full
fine-tuning, with the share of the parameters that it trains, at other ranks too, and what `--find-lr` takes. --changes
names those of the sweep that are run, none of them where it is empty. A base of more than ten million parameters is
compiled. Every run
is written to bench/out/learning.json when it is done, and one that is there is not run again: delete the file to
measure anew.
At 100 rows about half a minute a run on a free core of a CPU with AMX, and some fifty runs in all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from machine import card

from tunesmith import loop as door
from tunesmith.collect.lessons import collect_lessons
from tunesmith.core.jsonl import read_rows
from tunesmith.embedded import embedded_base
from tunesmith.model import device, load
from tunesmith.model.shape import stored_parameters
from tunesmith.text.length import decide_length
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train import loop, session
from tunesmith.train.config import TrainConfig, decide
from tunesmith.train.data import Data, Examples, render, select
from tunesmith.train.find_lr import find_lr
from tunesmith.train.objective import computed
from tunesmith.train.plan_batches import ExampleSource

HERE = Path(__file__).resolve().parent
OUT = HERE / "out/learning.json"
LAMINI = HERE.parents[1] / "shared/data/lamini/lamini_docs.jsonl"
FACTORS = (0.25, 0.5, 2.0, 4.0)
LEVERS = {"alpha 256": {"lora_alpha": 256.0}, "muon": {"optimizer": "muon"}}  # of LoRA, each at its usual rate
CONTEXT = 512  # of the embedded base
COMPILED = 10_000_000  # parameters from which on compiling pays within a run of a hundred steps


@dataclass(frozen=True)
class Case:
    """A set, made ready for a base."""

    name: str
    base: Path
    rows: int | None

    @cached_property
    def renderer(self) -> Renderer:
        return Renderer(Tokenizer.load(self.base))

    @cached_property
    def data(self) -> Data:
        with tempfile.TemporaryDirectory() as scratch:
            project = door.new(Path(scratch, "project"))
            if self.name == "demo":
                collect_lessons(project.place("raw"))
            else:
                door.collect(project, [LAMINI])
            set_ = door.prepare(project)
            train, valid = (
                render(read_rows(set_.path / f"{part}.jsonl"), self.renderer) for part in ("train", "valid")
            )
        limit = decide_length([one.tokens for one in (*train, *valid)], CONTEXT, None).max_length
        kept = select(train, self.renderer, limit, "skip").kept[: self.rows]
        return Data(Examples(kept), select(valid, self.renderer, limit, "skip"), [])

    def decided(self, values: dict[str, Any]) -> TrainConfig:
        config = decide(TrainConfig(**values), len(self.data.train.kept), stored_parameters(self.base))
        return config.model_copy(update={"compile": "on" if stored_parameters(self.base) > COMPILED else "off"})

    def prepared(self, values: dict[str, Any]) -> tuple[Any, ...]:
        config = self.decided(values)
        facts: dict[str, Any] = {"rows": {"train": len(self.data.train.kept)}}
        model, computing = session.prepare_model(config, self.base, facts)
        pad_id = None if computing.packed else self.renderer.tokenizer.pad_id
        return config, model, computing, pad_id, facts["trainable_parameters"] / facts["total_parameters"]


def learn(case: Case, values: dict[str, Any]) -> dict[str, Any]:
    """Train once, as `tunesmith train` would, and say how it went."""
    config, model, computing, pad_id, share = case.prepared(values)
    optimizers, objective = session.make_optimizers(config, model), computed(computing)
    computing.begin(model, optimizers)
    micro = config.micro_batch_tokens
    source = ExampleSource(case.data.train.kept, config.rows_a_step, micro, pad_id, config.seed)
    held = ExampleSource(case.data.valid.kept, config.rows_a_step, micro, pad_id).all()
    losses: list[float] = []

    def validate() -> float:
        losses.append(loop.mean_loss(model, held, computing.measuring, objective=objective))
        return losses[-1]

    before = validate()
    patience = config.early_stopping_patience
    settings = loop.Settings(
        config.max_steps, config.grad_clip, config.eval_every, patience=patience, computing=computing.training
    )
    state = loop.fit(model, source, optimizers, settings, hooks=loop.Hooks(validate=validate), objective=objective)
    return {
        "learning_rate": config.learning_rate,
        "batch_size": config.rows_a_step,
        "val_loss": state.best_val_loss,
        "before": before,
        "last": losses[-1],
        "train_loss": state.train_loss,
        "steps": state.step,
        "best_step": state.best_step,
        "share": share,
        "trained_tokens": state.trained_tokens,
    }


def found_rate(case: Case, values: dict[str, Any]) -> dict[str, Any]:
    """What --find-lr takes."""
    config, model, computing, pad_id, _ = case.prepared(values)
    return find_lr(config, model, case.data, computing, pad_id).facts


class Results:
    """Runs by what they are, kept in a file as they come."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = json.loads(OUT.read_text())["runs"] if OUT.is_file() else {}

    def of(self, case: Case, values: dict[str, Any], make: Callable[..., dict[str, Any]] = learn) -> dict[str, Any]:
        what = [make.__name__, case.name, load.base_hash(case.base)[:12], len(case.data.train.kept)]
        name = json.dumps([*what, case.decided(values).model_dump(exclude_defaults=True)])
        if name not in self.runs:
            self.runs[name] = make(case, values)
            OUT.parent.mkdir(exist_ok=True)
            OUT.write_text(json.dumps({"machine": card(), "runs": self.runs}, indent=2) + "\n", encoding="utf-8")
        found: dict[str, Any] = self.runs[name]
        return found


def around(results: Results, case: Case, values: dict[str, Any], asked: list[str] | None) -> dict[str, float]:
    """The validation loss with one thing changed, by what that is: all, or those that are `asked` for."""
    made = case.decided(values)
    rate, size = made.learning_rate or 0.0, made.rows_a_step
    epochs = round((made.max_steps or 0) / -(-len(case.data.train.kept) // size))
    changes = {f"rate x{factor:g}": {"learning_rate": float(f"{rate * factor:.2g}")} for factor in FACTORS}
    changes |= {f"batch {n}": {"batch_size": n} for n in (size // 2, size * 2)}
    changes |= {f"{n} epochs": {"num_epochs": n} for n in (epochs // 2, epochs * 2)}
    changes |= LEVERS if values["method"] == "lora" else {}
    some = {name: change for name, change in changes.items() if asked is None or name in asked}
    return {name: results.of(case, values | change)["val_loss"] for name, change in some.items()}


def swept(results: Results, case: Case, values: dict[str, Any], count: int, asked: list[str] | None) -> Iterator[str]:
    """The defaults with each of `count` seeds, the sweep around them, and the verdict."""
    seeds = [results.of(case, values | {"seed": seed}) for seed in range(count)]
    usual, first = [run["val_loss"] for run in seeds], seeds[0]
    yield (
        f"  {values}: {first['steps']} steps of {first['batch_size']} at {first['learning_rate']:g}, "
        f"{first['share']:.2%} of the parameters, before {first['before']:.4f}"
    )
    changed = around(results, case, values, asked)
    if not changed:
        return
    yield "    " + ", ".join(f"{name} {loss:.4f}" for name, loss in changed.items())
    best = min(changed, key=lambda name: changed[name])
    spread, gap = max(usual) - min(usual), fmean(usual) - changed[best]
    held = "nothing is lower" if gap <= 0 else "within the noise" if gap <= spread else "NOT within the noise"
    yield (
        f"    defaults: mean {fmean(usual):.4f}, spread {spread:.4f} of {count} seeds; "
        f"best beside them {changed[best]:.4f} ({best}): {held}"
    )
    if asked is not None:
        return
    found = results.of(case, values, found_rate)
    yield f"    --find-lr takes {found['taken']:g} after {found['steps']} steps each"


def compared(results: Results, case: Case, rank: int, count: int) -> str:
    lora = {"method": "lora", "lora_rank": rank}
    full, adapter = (
        [results.of(case, values | {"seed": seed}) for seed in range(count)] for values in ({"method": "full"}, lora)
    )
    most, less = (fmean(run["val_loss"] for run in runs) for runs in (full, adapter))
    told = f"  LoRA of rank {rank} ({adapter[0]['share']:.2%} of the parameters) against full: "
    return f"{told}{less:.4f} / {most:.4f} = {less / most:.3f}, n = {count}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["demo", "lamini"])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--lora-rank", type=int, default=2)
    parser.add_argument("--ranks", type=int, nargs="*", default=[16, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--changes", nargs="*")
    parser.add_argument("--method", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    asked = parser.parse_args()
    device.set_up()
    results, base = Results(), asked.base or embedded_base()
    for name in asked.cases:
        if name == "lamini" and not LAMINI.is_file():
            print(f"lamini: not run, {LAMINI.name} is not in ../shared/data")
            continue
        case = Case(name, base, asked.rows or None)
        print(f"{name}: {len(case.data.train.kept)} rows, {len(case.data.valid.kept)} held out", flush=True)
        for values in ({"method": "full"}, {"method": "lora", "lora_rank": asked.lora_rank}):
            if values["method"] in asked.method:
                for line in swept(results, case, values, asked.seeds, asked.changes):
                    print(line, flush=True)
        if len(asked.method) == 2:
            print(compared(results, case, asked.lora_rank, asked.seeds), flush=True)
            for rank in asked.ranks:
                print(compared(results, case, rank, 1), flush=True)


if __name__ == "__main__":
    main()
