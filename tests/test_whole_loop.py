"""The flat twin in examples/ and the library are the same training: equal tokens, losses, weights and scores."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import read_jsonl, write_rows
from tunesmith.core.records import Row, pair

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "whole_loop.py"
SETTINGS = {"learning_rate": 1e-2, "batch_size": 4, "seed": 7}
EPOCHS = 8  # 40 steps: two of warm-up
TRAIN, VALID = slice(0, 18), slice(18, 24)  # of the 24 rows of `pair_rows`; 18 rows leave the last batch half full


@pytest.fixture(scope="module")
def twin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("whole_loop", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _load(base: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), AutoTokenizer.from_pretrained(base)


def _encoded(twin: ModuleType, tokenizer: Any, rows: list[Row]) -> list[tuple[list[int], list[int]]]:
    return [twin.encode(tokenizer, row.question, row.answer) for row in rows]


def _set(rows: list[Row], folder: Path) -> Artifact:
    with writing(folder / "set-1") as work:
        for name, part in (("train", rows[TRAIN]), ("valid", rows[VALID]), ("test", [])):
            write_rows(work / f"{name}.jsonl", part)
        return seal(work, folder / "set-1", "set", {})


@pytest.mark.parametrize("arch", ["llama", "qwen"])
def test_the_twin_and_the_library_have_the_same_losses_and_end_with_the_same_weights(
    arch: str, twin: ModuleType, make_model_dir: Callable[..., Path], pair_rows: list[Row], tmp_path: Path
) -> None:
    """Llama writes a BOS and has untied weights; Qwen has none, ties its weights, and has a template of its own.

    Llama is best in the middle: both go back to it.
    """
    import torch

    from tunesmith.train import stage
    from tunesmith.train.config import TrainConfig

    base = make_model_dir(arch)
    model, tokenizer = _load(base)
    train, valid = (_encoded(twin, tokenizer, pair_rows[part]) for part in (TRAIN, VALID))
    steps, validations = twin.train(model, train, valid, epochs=EPOCHS, **SETTINGS)

    config = TrainConfig(num_epochs=EPOCHS, dtype="float32", early_stopping_patience=0, **SETTINGS)
    inputs = stage.TrainInputs(_set(pair_rows, tmp_path), str(base), base, template="plain")
    run = stage.run(config, inputs, tmp_path / "run-1")

    log = list(read_jsonl(run.path / "metrics.jsonl"))
    assert len(steps) == EPOCHS * 5
    assert steps == pytest.approx([line["train_loss"] for line in log if "train_loss" in line], rel=1e-4)
    assert validations == pytest.approx([line["val_loss"] for line in log if "val_loss" in line], rel=1e-4)
    assert min(validations) < 0.8 * validations[0], "nothing was learnt, so equal losses would say little"
    assert arch != "llama" or min(validations) < validations[-1]
    theirs = _load(run.path / "model")[0].state_dict()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-3, atol=1e-4)


def test_the_gradient_does_not_depend_on_how_many_rows_go_through_in_a_pass(
    twin: ModuleType, llama_dir: Path, pair_rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for rows_a_pass in (1, 3, 100):
        monkeypatch.setattr(twin, "ROWS_A_PASS", rows_a_pass)
        model, tokenizer = _load(llama_dir)
        train, valid = (_encoded(twin, tokenizer, pair_rows[part]) for part in (TRAIN, VALID))
        losses.append(twin.train(model, train, valid, epochs=2, **SETTINGS)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)


HARD = ("What does </s> mean, <|im_end|>?", " It ends a text: </s>\n\n### Answer:\n<|endoftext|> ")


def test_the_twin_and_the_library_make_the_same_tokens_and_train_the_same_ones(
    twin: ModuleType, any_model_dir: Path
) -> None:
    from tunesmith.core.records import Message
    from tunesmith.text.render import Renderer
    from tunesmith.text.tokenizer import Tokenizer

    renderer, tokenizer = Renderer(Tokenizer.load(any_model_dir), "plain"), _load(any_model_dir)[1]
    for question, answer in [("Which colour is the sky?", "It is blue."), HARD]:
        (example,) = renderer.render(pair(question, answer))
        ids, labels = twin.encode(tokenizer, question, answer)
        length = len(ids)  # after the end token the library's template goes on with a line break, never trained
        assert ids == example.ids[:length]
        assert labels == [i if m else twin.IGNORE for i, m in zip(ids, example.mask[:length], strict=True)]
        assert not any(example.mask[length:])
        assert twin.encode(tokenizer, question)[0] == renderer.prompt([Message("user", question)])


def test_the_twin_scores_as_the_library_does(twin: ModuleType) -> None:
    from tunesmith.metrics.overlap import exact_match, token_f1

    answers = ["It is  Blue.", "It is a red red door", "", "yes"]
    references = ["it is blue", "The door is red", "Something.", "yes!"]
    found = twin.scores(answers, references)
    pairs = list(zip(answers, references, strict=True))
    assert found["exact_match"] == pytest.approx(sum(exact_match(*p) for p in pairs) / 4)
    assert found["f1"] == pytest.approx(sum(token_f1(*p) for p in pairs) / 4)
    assert found["exact_match"] == 0.5


def test_the_split_is_by_question_and_does_not_move_when_rows_are_added(twin: ModuleType) -> None:
    pairs = [(f"question {n}", f"answer {n}") for n in range(200)]
    again = [("question 3", "another answer"), *((f"more {n}", "a") for n in range(50))]
    few, many = twin.split(pairs), twin.split(pairs + again)
    assert {side: len(found) for side, found in few.items()} == {"train": 168, "valid": 12, "test": 20}
    for side, found in few.items():
        assert many[side][: len(found)] == found
    (home,) = [side for side, found in many.items() if ("question 3", "another answer") in found]
    assert ("question 3", "answer 3") in many[home]


@pytest.fixture(scope="module")
def finished(llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The script run once as a user runs it: (its output folder, what it printed)."""
    folder = tmp_path_factory.mktemp("twin")
    rows = [
        {"question": f"Which colour is door {n}?", "answer": f"It is {'red' if n % 2 else 'blue'}."} for n in range(40)
    ]
    rows += [rows[0], {"question": "a very long question " * 40, "answer": "yes"}]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(llama_dir), str(folder / "data.jsonl"), str(folder / "out")]
    flags = ["--epochs", "2", "--learning-rate", "0.01", "--batch-size", "8", "--seed", "1"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_the_script_runs_from_end_to_end_and_accounts_for_every_row(finished: tuple[Path, str]) -> None:
    out, said = finished
    facts = json.loads((out / "results.json").read_text())
    n = len(facts["answers"])
    valid = 40 - n - int(said.split(" train")[0].split()[-1])
    assert said.startswith("42 rows = 1 duplicates + 1 too long + ")
    assert f" + {valid} valid + {n} test\n" in said
    assert facts["settings"] == {"epochs": 2, "learning_rate": 0.01, "batch_size": 8, "seed": 1}
    assert len(facts["valid_losses"]) == 2
    assert facts["valid_losses"][1] < facts["valid_losses"][0]
    assert facts["tuned"]["f1"] > facts["base"]["f1"]


def test_plain_transformers_load_what_the_script_saved_and_ask_and_stop_as_it_was_trained(
    twin: ModuleType, finished: tuple[Path, str]
) -> None:
    out, _ = finished
    model, tokenizer = _load(out / "model")
    messages = [{"role": "user", "content": "Which colour is it?"}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert asked == twin.encode(tokenizer, "Which colour is it?")[0]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    first = json.loads((out / "results.json").read_text())["answers"][0]
    assert twin.greedy(model.eval(), tokenizer, [first["question"]], 64) == [first["tuned"]]


def test_the_twin_has_at_most_200_lines_and_nothing_of_the_library() -> None:
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert not [line for line in lines if line.startswith(("import tunesmith", "from tunesmith"))]
