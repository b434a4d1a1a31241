"""The one call: from a base and a file to a model that answers, is measured, and is saved for other tools."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunesmith
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.records import Message

SETTINGS = {"max_steps": 2, "sample_every": 0}


def write(path: Path, rows: int = 30) -> Path:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(2 * rows)]
    pairs = zip(words[::2], words[1::2], strict=True)
    path.write_text("".join(json.dumps({"question": f"{a} {b}?", "answer": f"It is {b}."}) + "\n" for a, b in pairs))
    return path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def model(here: Path, llama_dir: Path) -> tunesmith.Model:
    return tunesmith.finetune(str(llama_dir), write(here / "faq.jsonl"), project="help", **SETTINGS)


def test_the_model_answers_greedily_and_the_same_each_time(model: tunesmith.Model) -> None:
    said = model("Where is it?", max_new_tokens=8)
    assert said == model("Where is it?", max_new_tokens=8) != ""
    samples = {model("Where is it?", max_new_tokens=8, temperature=1.5, seed=seed) for seed in range(4)}
    assert len(samples) > 1


def test_the_saved_folder_loads_with_plain_transformers_and_says_the_same(model: tunesmith.Model, here: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model.save(here / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    chat = [{"role": "user", "content": "Where is it?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    with torch.inference_mode():
        out = loaded.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    said = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert said == model("Where is it?", max_new_tokens=8)


def test_evaluate_returns_what_the_command_prints_and_takes_its_settings(model: tunesmith.Model) -> None:
    found = model.evaluate(limit=2, metrics=["f1"])
    assert found.keys() == {"path", "report", "n", "metrics", "corpus", "not_run", "errors"}
    assert (found["n"], found["metrics"].keys()) == (2, {"f1"})
    assert found["metrics"]["f1"].keys() == {"base", "tuned", "difference", "low", "high", "p"}


def test_a_second_call_in_the_same_folder_trains_another_run(
    model: tunesmith.Model, here: Path, llama_dir: Path
) -> None:
    again = tunesmith.finetune(str(llama_dir), here / "faq.jsonl", project="help", method="lora", **SETTINGS)
    assert (model.run.name, again.run.name) == ("run-1", "run-2")
    assert again.run.facts["set"] == model.run.facts["set"]
    assert again.run.facts["method"] == "lora"
    assert again("Where is it?", max_new_tokens=4) is not None
    assert repr(again) == f"Model({str(here / 'help' / 'runs' / 'run-2')!r})"


def test_the_system_message_of_the_task_goes_before_every_question(
    model: tunesmith.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    asked: list[list[Message]] = []
    renderer = SimpleNamespace(prompt=lambda messages: asked.append(messages) or [1])
    engine = SimpleNamespace(generate=lambda prompts, sampling: [SimpleNamespace(text="yes")])
    monkeypatch.setattr(model, "_loaded", (engine, renderer))
    monkeypatch.setattr(model.project, "task", model.project.task.model_copy(update={"system": "Be brief."}))
    assert model("Why?") == "yes"
    assert asked == [[Message("system", "Be brief."), Message("user", "Why?")]]


def test_a_folder_that_is_taken_is_not_overwritten(model: tunesmith.Model, here: Path) -> None:
    (here / "taken").mkdir()
    (here / "taken" / "a").touch()
    for place in (here / "taken", here / "faq.jsonl"):
        with pytest.raises(UsageError, match="is taken"):
            model.save(place)


def test_mistakes_are_told_before_anything_is_made(here: Path) -> None:
    (here / "plain").write_text('{"question": "a", "answer": "b"}\n')
    with pytest.raises(UsageError) as error:
        tunesmith.finetune("default", "fag.jsonl", project="x")
    assert "does not exist" in str(error.value)
    with pytest.raises(UsageError, match="is a file") as error:
        tunesmith.finetune("default", "plain")
    assert error.value.fix == "give project=FOLDER"
    with pytest.raises(UsageError) as error:
        tunesmith.finetune("default", write(here / "faq.jsonl"), project="y", max_step=2)
    assert error.value.fix == "did you mean 'max_steps'?"
    assert not (here / "x").exists()


def test_columns_can_be_named(here: Path) -> None:
    (here / "chat.jsonl").write_text('{"kunde": "a", "bot": "b"}\n')
    with pytest.raises(DataError, match="no column 'kund'"):
        tunesmith.finetune("default", "chat.jsonl", project="z", map={"prompt": "kund", "completion": "bot"})
