"""The examples of docs/python.md are run as they stand; only the base and the data are small."""

from __future__ import annotations

import inspect
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "python.md").read_text(encoding="utf-8")
ONE_CALL, STAGES, LOOP = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def faq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a faq.jsonl of 40 rows whose questions have nothing in common, made the working directory."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(80)]
    rows = [{"question": f"{a} {b}?", "answer": f"It is {a}."} for a, b in zip(words[::2], words[1::2], strict=True)]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(example: str, base: Path | None = None) -> dict[str, Any]:
    """Execute an example, on a tiny base in place of the embedded one. Returns its names."""
    if base is not None:
        assert example.count('"default"') == 1
        example = example.replace('"default"', repr(str(base)))
    names: dict[str, Any] = {}
    exec(compile(example, "docs/python.md", "exec"), names)
    return names


def test_the_one_call_gives_a_model_that_answers_is_measured_and_is_saved(
    faq: Path, make_model_dir: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    model = run(ONE_CALL, make_model_dir("llama"))["model"]
    said, f1 = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    assert said == model("How do I reset my password?")
    assert set(eval(f1)) == {"base", "tuned", "difference", "low", "high", "p"}
    assert AutoModelForCausalLM.from_pretrained(faq / "out").num_parameters() == model.run.facts["total_parameters"]
    assert model.project.path == faq / "faq"
    assert model.run.path.parent == faq / "faq" / "runs"


def test_the_stages_give_artifacts_with_the_facts_that_the_page_prints(
    faq: Path, make_model_dir: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = run(STAGES, make_model_dir("qwen"))
    said = capsys.readouterr().out
    assert said.startswith("40 {}\n")
    assert (names["run"].path / "model" / "model.safetensors").is_file()
    assert names["run"].facts["epochs"] <= 2
    assert names["done"].path == faq / "help" / "evals" / "eval-1"
    assert (names["done"].path / "report.html").is_file()


def test_the_loop_trains_any_module_and_the_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    run(LOOP)
    assert capsys.readouterr().out.strip() == LOOP.strip().rsplit("  # ", 1)[1]
    assert len([line for line in LOOP.splitlines() if line.strip()]) <= 25


def signature(function: Callable[..., Any], *, without: tuple[str, ...] = ()) -> str:
    """As the page writes it: names and defaults, no types."""
    found = inspect.signature(function)
    kept = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name not in without]
    return str(found.replace(parameters=kept, return_annotation=found.empty)).replace("'", '"')


def test_the_signatures_on_the_page_are_the_real_ones() -> None:
    import tunesmith
    from tunesmith import loop

    named = dict(re.findall(r"^\| `loop\.(\w+)(\(.*?\))` \|", PAGE, flags=re.MULTILINE))
    assert {"new", "open_project", "collect", "prepare", "pretrain", "train", "evaluate", "load_engine"} == set(named)
    for name in ("new", "open_project", "collect"):
        assert named[name] == signature(getattr(loop, name))
    for name in ("prepare", "pretrain", "train", "evaluate"):
        real = signature(getattr(loop, name), without=("more_arms",))
        assert named[name] == real.replace("**overrides", f"**{name}_settings")
    assert f"`finetune{signature(tunesmith.finetune)} -> Model`" in PAGE


def test_the_default_pretrained_model_has_as_many_parameters_as_the_page_says() -> None:
    from tunesmith.train.config import PretrainConfig
    from tunesmith.train.pretrain import build_model

    config = PretrainConfig()
    tokenizer: Any = SimpleNamespace(vocab_size=config.vocab_size, eos_id=0, pad_id=0)
    count = sum(p.numel() for p in build_model(config, tokenizer).parameters())
    assert f"{count / 1e6:.1f} million parameters" in (DOCS / "pretrain.md").read_text(encoding="utf-8")
