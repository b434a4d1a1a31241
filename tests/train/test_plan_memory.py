import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import ResourceError
from tunesmith.model import memory
from tunesmith.text.render import Example
from tunesmith.train import plan_memory, session, stage
from tunesmith.train.config import TrainConfig, decide
from tunesmith.train.plan_memory import Plan, Room, as_decided, compared, largest

ROWS = [
    Example(list(range(3, 3 + n)), [i > n // 2 for i in range(n)], str(n)) for n in (100, 96, 90, 60, 40, 30, 90, 80)
]
PLAIN: dict[str, Any] = {"max_steps": 4, "batch_size": 4, "dtype": "float32", "micro_batch_tokens": 400}
LEAST: dict[str, Any] = {"gradient_checkpointing": "on", "micro_batch_tokens": 100}
Planned = Callable[..., Any]


@pytest.fixture
def planned(make_model_dir: Callable[..., Path]) -> Planned:
    """`planned(gb, rows, **config)`: the plan for a model of eight layers, with so much memory free."""
    path = make_model_dir("llama", num_hidden_layers=8)

    def plan(gb: float, rows: list[Example] = ROWS, *, settled: bool = False, **values: Any) -> Plan | None:
        config = decide(TrainConfig(**PLAIN | values), len(rows), 10**6)
        _, computing = session.prepare_model(config, path, {})
        start = Room(0.0, gb, torch.float32)
        return plan_memory.plan_memory(config, computing, rows, None, start, settled=settled)

    return plan


def decided(plan: Plan) -> tuple[str, int]:
    return plan.config.gradient_checkpointing, plan.config.micro_batch_tokens


def test_what_fits_is_left_as_it_is(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    assert decided(planned(9.0)) == ("off", 400)
    assert decided(planned(9.0, gradient_checkpointing="on")) == ("on", 400)
    said = capsys.readouterr().err
    assert "  memory: about 0.1" in said
    assert "9.0 free now" in said


def test_activations_are_made_again_and_then_micro_batches_made_smaller_only_where_memory_asks_for_it(
    planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = planned(9.0)
    again = planned(9.0, gradient_checkpointing="on")
    least = planned(9.0, **LEAST)
    assert least.gb < again.gb < whole.gb
    assert again.computing.limit_gb == 1.05 * again.gb
    assert planned(whole.gb).computing.limit_gb == whole.gb  # all that there is
    assert decided(planned(whole.gb)) == ("off", 400)
    assert decided(planned(whole.gb - 1e-6)) == ("on", 400)
    assert "gradient_checkpointing = on: without it," in capsys.readouterr().err
    assert decided(planned(again.gb - 1e-6)) == ("on", 200)
    assert decided(planned(least.gb)) == ("on", 100)  # the longest row
    assert decided(planned(whole.gb - 1e-6, gradient_checkpointing="off")) == ("off", 200)


def test_what_cannot_fit_is_refused_with_the_first_change_that_does(planned: Planned) -> None:
    least = planned(9.0, **LEAST)
    with pytest.raises(ResourceError, match=r"next: --method lora$") as caught:
        planned(least.gb - 1e-6)
    assert caught.value.exit_code == 5
    assert planned(least.gb - 1e-6, method="lora")
    plain = planned(9.0, micro_batch_tokens=100, gradient_checkpointing="off")
    with pytest.raises(ResourceError, match=r"next: --gradient-checkpointing auto$"):
        planned(plain.gb - 1e-6, gradient_checkpointing="off")
    long, half = [replace(ROWS[0], row_id=str(n)) for n in range(4)], {"method": "lora", "dtype": "bfloat16"}
    lora = planned(9.0, long, **LEAST, method="lora", target_modules=["q_proj"])
    with pytest.raises(ResourceError, match=r"next: --dtype bfloat16$"):
        planned(lora.gb - 1e-6, long, method="lora", target_modules=["q_proj"])
    assert planned(lora.gb - 1e-6, long, **half, target_modules=["q_proj"])


def test_rows_as_long_as_fit_are_offered_where_nothing_else_helps(planned: Planned) -> None:
    lora: dict[str, Any] = {"method": "lora", "dtype": "bfloat16"}
    rows = [Example([*range(3, 203)], [i > 9 for i in range(200)], str(n)) for n in range(7)] + ROWS[:3]
    fits = planned(9.0, [replace(one, ids=one.ids[:128], mask=one.mask[:128]) for one in rows], **LEAST | lora)
    with pytest.raises(ResourceError, match=r"most 128 tokens; 7 of 10 are longer\n  next: --max-length 128$"):
        planned(fits.gb, rows, **lora)
    with pytest.raises(ResourceError, match=r"most 64 tokens; 10 of 10 are longer\n  next: --max-length 64$"):
        planned(fits.gb - 1e-6, rows, **lora)
    with pytest.raises(ResourceError, match=r"a smaller base, or 0\.2 GB more memory$"):
        planned(0.0, rows, **lora)


def test_a_resumed_run_goes_on_as_it_began(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    assert decided(planned(0.001, settled=True, gradient_checkpointing="off")) == ("off", 400)
    assert "more than when this run was begun" in capsys.readouterr().err
    config = TrainConfig()
    before = {"asked": {"gradient_checkpointing": "auto", "micro_batch_tokens": 4096}}
    before["decided"] = {"gradient_checkpointing": "on", "micro_batch_tokens": 512}
    assert decided_of(as_decided(config, {"memory": before})) == ("on", 512)
    changed = TrainConfig(micro_batch_tokens=4000)
    assert as_decided(changed, {"memory": before}) is changed
    assert as_decided(config, {}) is config


def decided_of(config: TrainConfig) -> tuple[str, int]:
    return config.gradient_checkpointing, config.micro_batch_tokens


def test_a_model_that_cannot_be_told_is_trained_all_the_same_and_it_is_said(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(job: memory.Job) -> memory.Parts:
        raise RuntimeError("which expert?\nmore")

    monkeypatch.setattr(memory, "dry_run", fail)
    assert planned(0.0) is None
    assert "cannot be predicted for this model (which expert?)" in capsys.readouterr().err


def test_the_largest_micro_batch_is_found_in_the_steps_that_are_run() -> None:
    config = decide(TrainConfig(**PLAIN), len(ROWS), 10**6)
    found = largest(config, ROWS, None)
    steps = [session.ExampleSource(ROWS, 4, 400, None, config.seed).step(n) for n in range(2)]
    assert sum(found.lengths) == max(m.tokens for step in steps for m in step)
    assert found.trained == max(m.trained_tokens for step in steps for m in step)
    assert found.several == any(len(step) > 1 for step in steps)
    small = largest(config.model_copy(update={"micro_batch_tokens": 1}), ROWS, None)
    assert (sum(small.lengths), small.several) == (100, True)
    assert found.varied
    alike = [replace(ROWS[0], row_id=str(n)) for n in range(8)]
    assert not largest(config, alike, None).varied


def test_the_receipt_has_what_was_predicted_and_what_was_measured(tuned: Callable[[str, str], Any]) -> None:
    made = tuned("llama", "full")
    facts = made.run.facts["memory"]
    assert facts["decided"] == {"gradient_checkpointing": "off", "micro_batch_tokens": 4096}
    assert facts["asked"] == {"gradient_checkpointing": "auto", "micro_batch_tokens": 4096}
    assert facts["measured_gb"] > 0
    assert facts["error_percent"] == pytest.approx(100 * (facts["predicted_gb"] / facts["measured_gb"] - 1), abs=1)
    assert set(facts["parts"]) == {"weights", "masters", "moments", "gradients", "activations", "working"}
    assert made.run.facts["config"]["gradient_checkpointing"] == "off"
    assert compared({"predicted_gb": 1.1}, 1.0)["error_percent"] == pytest.approx(10.0)


def test_checkpointing_changes_how_a_run_is_computed_and_not_what_it_learns(
    llama_dir: Path, small_set: Artifact, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"max_steps": 2, "eval_every": 2, "learning_rate": 0.02, "dtype": "float32"}
    runs = {
        choice: stage.run(
            TrainConfig(**values, gradient_checkpointing=choice),
            stage.TrainInputs(small_set, str(llama_dir)),
            tmp_path / choice,
        )
        for choice in ("on", "off")
    }
    assert runs["on"].facts["memory"]["parts"]["activations"] < runs["off"].facts["memory"]["parts"]["activations"]
    assert runs["on"].facts["val_loss"] == pytest.approx(runs["off"].facts["val_loss"], rel=1e-5)
    assert json.loads((runs["on"].path / "receipt.json").read_text())["config"]["gradient_checkpointing"] == "on"


def test_a_decision_is_kept_when_an_interrupted_run_is_resumed_with_other_memory(
    llama_dir: Path, small_set: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(max_steps=2, eval_every=2, learning_rate=0.02, dtype="float32")
    inputs = stage.TrainInputs(small_set, str(llama_dir))

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    def has(free: float) -> None:
        monkeypatch.setattr(stage, "room", lambda base: Room(0.0, free, torch.float32))

    has(9.0)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(stage, "fit_model", stop)
        stage.run(config, inputs, tmp_path / "ample")
    begun = json.loads((tmp_path / "ample.partial/receipt.json").read_text())
    has(0.001)
    resumed = stage.run(config, inputs, tmp_path / "ample", resume=True)
    assert resumed.facts["memory"]["decided"] == begun["memory"]["decided"]
    assert resumed.facts["memory"]["decided"]["gradient_checkpointing"] == "off"
    assert resumed.facts["memory"]["asked"] == begun["memory"]["asked"]


@pytest.fixture(scope="module")
def project(tunesmith: Callable[..., Any], make_model_dir: Callable[..., Path], tmp_path_factory: Any) -> Path:
    """A project whose base takes megabytes to train."""
    here: Path = tmp_path_factory.mktemp("memory")
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6}
    pairs = [(f"{place} {thing}?", f"The {thing} is in the {place}.") for place in PLACES for thing in THINGS]
    rows = [json.dumps({"question": question, "answer": answer}) for question, answer in pairs]
    (here / "faq.jsonl").write_text("\n".join(rows), encoding="utf-8")
    tunesmith("new", "faq", "--data", "faq.jsonl", "--base", make_model_dir("llama", **shape), cwd=here)
    assert tunesmith("prepare", cwd=here / "faq").code == 0
    return here / "faq"


PLACES = ["river", "harbour", "kitchen", "library", "garden", "station"]
THINGS = ["lantern", "compass", "blanket", "violin", "ladder", "kettle"]


@pytest.mark.usefixtures("cache")
def test_the_command_decides_says_why_and_refuses_with_exit_5_and_a_change_that_works(
    project: Path, tunesmith: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", "--max-steps", 1, "--dtype", "float32", "--batch-size", 16]

    def has(free: float) -> None:
        monkeypatch.setattr(stage, "room", lambda base: Room(0.0, free, torch.float32))

    def memory_of(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((project / "runs" / name / "receipt.json").read_text())["memory"]
        return found

    has(9.0)
    said = tunesmith(*train, "--name", "ample", cwd=project)
    assert said.code == 0
    ample = memory_of("ample")
    line = f"memory: {ample['predicted_gb']:.2f} GB predicted, {ample['measured_gb']:.2f} GB measured at the peak ("
    assert line in said.err
    has(ample["predicted_gb"] - 0.002)
    said = tunesmith(*train, "--name", "tight", cwd=project)
    assert said.code == 0
    assert f"gradient_checkpointing = on: without it, {ample['predicted_gb']:.2f} GB" in said.err
    assert memory_of("tight")["decided"]["gradient_checkpointing"] == "on"
    has(0.11 + 0.4 * (ample["predicted_gb"] - 0.11))  # of what is not the process itself
    said = tunesmith(*train, "--name", "none", cwd=project)
    assert said.code == 5
    assert "GB of memory are there" in said.err
    change = said.err.split("next: ")[1].split()
    assert tunesmith(*train, *change, "--name", "none", cwd=project).code == 0
