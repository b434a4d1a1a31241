import mmap
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import read_rows, write_rows
from tunesmith.core.records import Message, Row, pair
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train import tokens
from tunesmith.train.data import Rendered, render, select
from tunesmith.train.plan_batches import ExampleSource
from tunesmith.train.tokens import Stored, tokenized

ROWS = [
    pair("Why?", "So."),
    Row((Message("user", "Nothing comes back."),)),  # no answer
    pair("Who is it?", "It is the quick brown fox, and the lazy dog is with it."),
    Row(text="the fox and the dog"),
]


@pytest.fixture
def set_(tmp_path: Path) -> Artifact:
    return make_set(tmp_path / "sets/one", ROWS)


def make_set(place: Path, rows: list[Row]) -> Artifact:
    with writing(place) as work:
        write_rows(work / "train.jsonl", rows)
        return seal(work, place, "set", {})


@pytest.fixture
def renderer(llama_dir: Path) -> Renderer:
    return Renderer(Tokenizer.load(llama_dir))


def owner(array: Any) -> Any:
    while isinstance(array, np.ndarray):
        array = array.base
    return array


def plain(found: list[Rendered]) -> list[Any]:
    return [
        (one.row, [(list(e.ids), list(e.mask), e.row_id) for e in one.examples], one.reason, one.detail)
        for one in found
    ]


def test_what_is_stored_is_what_is_rendered_the_first_time_and_every_time(
    set_: Artifact, renderer: Renderer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tokenized(set_, "train", renderer, tmp_path / "tokens")
    assert "as made before" not in capsys.readouterr().err
    again = tokenized(set_, "train", renderer, tmp_path / "tokens")
    assert "train: token ids as made before, in tokens/" in capsys.readouterr().err
    assert plain(first) == plain(again) == plain(render(read_rows(set_.path / "train.jsonl"), renderer))
    assert all(isinstance(e, Stored) for one in first for e in one.examples)


def test_ids_and_masks_are_views_of_files_and_take_five_bytes_a_token(
    set_: Artifact, renderer: Renderer, tmp_path: Path
) -> None:
    found = tokenized(set_, "train", renderer, tmp_path / "tokens")
    examples = [e for one in found for e in one.examples if isinstance(e, Stored)]
    assert {type(owner(array)) for e in examples for array in (e.ids, e.mask)} == {mmap.mmap}
    (made,) = (tmp_path / "tokens").iterdir()
    total = sum(len(e.ids) for e in examples)
    assert (made / "ids.bin").stat().st_size + (made / "mask.bin").stat().st_size == 5 * total


def test_batches_of_stored_rows_are_those_of_rendered_ones(set_: Artifact, renderer: Renderer, tmp_path: Path) -> None:
    parts = [
        tokenized(set_, "train", renderer, tmp_path / "tokens"),
        render(read_rows(set_.path / "train.jsonl"), renderer),
    ]
    for pad in (None, 0):
        stored, listed = (ExampleSource(select(part, renderer, 64, "skip").kept, 2, 30, pad).step(0) for part in parts)
        for a, b in zip(stored, listed, strict=True):
            np.testing.assert_array_equal(a.input_ids, b.input_ids)
            np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("changed", ["rows", "template", "train_on"])
def test_another_set_template_or_mask_has_files_of_its_own(
    set_: Artifact, renderer: Renderer, tmp_path: Path, changed: str
) -> None:
    folder = tmp_path / "tokens"
    tokenized(set_, "train", renderer, folder)
    other = Renderer(renderer.tokenizer, "alpaca" if changed == "template" else "auto")
    if changed == "train_on":
        other = Renderer(renderer.tokenizer, train_on="all")
    part = make_set(tmp_path / "sets/two", ROWS[:1]) if changed == "rows" else set_
    found = tokenized(part, "train", other, folder)
    assert len(list(folder.iterdir())) == 2
    assert plain(found) == plain(render(read_rows(part.path / "train.jsonl"), other))


@pytest.mark.parametrize("file", ["ids.bin", "mask.bin", "lengths.npy", "sequences.npy", "reasons.json"])
def test_files_that_were_damaged_are_made_again_and_that_is_said(
    set_: Artifact, renderer: Renderer, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = plain(tokenized(set_, "train", renderer, tmp_path / "tokens"))
    (made,) = (tmp_path / "tokens").iterdir()
    (made / file).write_bytes(b"\0" * 8)
    assert plain(tokenized(set_, "train", renderer, tmp_path / "tokens")) == wanted
    assert "is damaged: its token ids are made again" in capsys.readouterr().err


def test_where_nothing_can_be_written_the_ids_are_held_in_memory_and_that_is_said(
    set_: Artifact, renderer: Renderer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokens").write_text("a file in the way")
    found = tokenized(set_, "train", renderer, tmp_path / "tokens")
    assert plain(found) == plain(render(read_rows(set_.path / "train.jsonl"), renderer))
    assert "token ids are held in memory, not on disk" in capsys.readouterr().err


def test_a_set_without_a_row_has_no_sequences(renderer: Renderer, tmp_path: Path) -> None:
    empty = make_set(tmp_path / "sets/none", [])
    assert tokenized(empty, "train", renderer, tmp_path / "tokens") == []
    assert tokenized(empty, "train", renderer, tmp_path / "tokens") == []


def test_only_the_newest_are_kept(renderer: Renderer, tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    for n in range(tokens.KEPT + 2):
        part = make_set(tmp_path / f"sets/{n}", [pair(f"Why {n}?", "So.")])
        tokenized(part, "train", renderer, folder)
        shutil.rmtree(part.path)
    assert len(list(folder.iterdir())) == tokens.KEPT
