"""The embedded base: what it reads, when it is made again, and that nothing of the demo's held-out rows is in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith import embedded, loop
from tunesmith.collect.lessons import collect_lessons
from tunesmith.collect.stdlib import Library, harvest
from tunesmith.core.jsonl import read_jsonl, read_rows
from tunesmith.core.records import Row
from tunesmith.train.config import PretrainConfig

TINY = PretrainConfig(vocab_size=300, dim=16, num_layers=1, num_heads=2, ffn_dim=16, block=32, context=32, max_steps=3)


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    """The standard library's documents, read once for all that ask for them here."""
    found = harvest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunesmith.embedded.harvest", lambda: found)
        patch.setattr("tunesmith.collect.lessons.harvest", lambda: found)
        yield found


@pytest.fixture(scope="module")
def texts(library: Library) -> list[str]:
    return embedded._texts()


@pytest.fixture(scope="module")
def held(library: Library, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows that a demo of its own holds out: made by the doors, as `tunesmith demo` does."""
    project = loop.new(tmp_path_factory.mktemp("demo") / "demo")
    raw = collect_lessons(project.place("raw"))
    set_ = loop.prepare(project)
    ids = {row.id for part in ("valid", "test") for row in read_rows(set_.path / f"{part}.jsonl")}
    return [row for row in read_rows(raw.path / "examples.jsonl") if row.id in ids]


def test_no_document_of_a_held_out_class_or_function_is_read(
    library: Library, texts: list[str], held: list[Row]
) -> None:
    """A text that a class that is not held out has too, word for word, is that one's."""
    groups = {row.meta.group for row in held}
    kept = {text for group, text in library.documents if group not in groups}
    gone = {text for group, text in library.documents if group in groups} - kept
    assert len(gone) > 100
    assert gone.isdisjoint(texts)


def test_no_held_out_question_is_read_in_another_place(texts: list[str], held: list[Row]) -> None:
    reading = [row.question for row in held if "action:" in row.answer]
    assert len(reading) > 50
    read = "\n".join(texts)
    assert [question for question in reading if question in read] == []


def test_everything_else_is_read(library: Library, texts: list[str], held: list[Row]) -> None:
    groups = {row.meta.group for row in held}
    kept = {text for group, text in library.documents if group not in groups}
    assert set(texts) <= kept
    assert len(set(texts)) > 0.8 * len(kept)
    assert sum(map(len, texts)) > 2_000_000


def test_the_key_is_that_of_the_config_and_of_this_python_and_quick() -> None:
    began = time.monotonic()
    key = embedded._key(PretrainConfig())
    assert time.monotonic() - began < 5  # 50 ms; a slow test machine is not a fault
    assert key == embedded._key(PretrainConfig())
    keys = {embedded._key(PretrainConfig(**change)) for change in ({"seed": 1}, {"max_steps": 481}, {"dim": 204})}
    assert len(keys | {key}) == 4


def test_the_key_follows_the_code_that_makes_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    key = embedded._key(TINY)
    monkeypatch.setattr(embedded, "file_hash", lambda path: "another")
    assert embedded._key(TINY) != key


def test_a_base_is_made_once_and_taken_from_the_cache_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "_texts", lambda: [f"The lamp number {n} stands in the hall." for n in range(200)])
    run = embedded.embedded_run(TINY)
    assert "making the embedded base, once" in capsys.readouterr().err
    assert run.facts["steps"] == 3
    assert {sample["step"] for sample in read_jsonl(run.path / "samples.jsonl")} == {0, 3}
    again = embedded.embedded_run(TINY)
    assert (again.path, again.hash) == (run.path, run.hash)
    assert capsys.readouterr().err == ""
    assert embedded.embedded_base(TINY) == run.path / "model"
    assert run.path.is_relative_to(tmp_path / "bases")


def test_default_means_the_embedded_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "embedded_base", lambda: tmp_path)
    assert loop.base_path(loop.new(tmp_path / "faq"), "default") == tmp_path
