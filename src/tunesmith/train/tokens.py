"""The rows of a set as token ids on disk: made once, and mapped into memory by every run on the same set."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.artifact import Artifact, artifacts, open_artifact, seal, writing
from tunesmith.core.errors import DataError, ResourceError, UsageError
from tunesmith.core.jsonl import read_json, read_rows, write_json
from tunesmith.core.records import Row
from tunesmith.core.runlog import say
from tunesmith.text.render import Renderer
from tunesmith.train.data import Rendered, render

FORMAT = 1  # of the files; another one makes them anew
KEPT = 8  # folders; a run has two, of its train and its valid split


@dataclass(frozen=True, slots=True)
class Stored:
    """A training sequence whose `ids` (int32) and `mask` (bool) lie in a file, read as they are needed."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]
    row_id: str


def tokenized(set_: Artifact, part: str, renderer: Renderer, folder: Path) -> list[Rendered]:
    """Every row of a split, rendered at full length. Below `folder` for all with this set, tokenizer and template.

    What cannot be written there, for want of space or of permission, is held in memory, and that is said.
    """
    name = f"{part}.jsonl"
    rows, place = list(read_rows(set_.path / name)), folder / _key(set_, name, renderer)
    if place.exists():
        with suppress(DataError):
            found = _load(open_artifact(place, "tokens"), rows)
            say(f"  {part}: token ids as made before, in {place.parent.name}/{place.name}")
            return found
        say(f"warning: {place} is damaged: its token ids are made again")
        shutil.rmtree(place)
    try:
        return _load(_store(rows, renderer, place), rows)
    except (ResourceError, OSError) as error:
        say(f"warning: token ids are held in memory, not on disk: {error}")
        return render(rows, renderer)


def _key(set_: Artifact, name: str, renderer: Renderer) -> str:
    parts = (FORMAT, set_.manifest["files"][name]["sha256"], renderer.hash, renderer.train_on)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _store(rows: Sequence[Row], renderer: Renderer, place: Path) -> Artifact:
    """Write the ids and masks of all rows, one after the other, and where each begins."""
    sequences, lengths, reasons = [], [], {}
    with writing(place) as work:
        with (work / "ids.bin").open("wb") as ids, (work / "mask.bin").open("wb") as mask:
            for number, row in enumerate(rows):
                (one,) = render([row], renderer)
                sequences.append(len(one.examples))
                if one.reason:
                    reasons[str(number)] = [one.reason, one.detail]
                for example in one.examples:
                    lengths.append(len(example.ids))
                    ids.write(np.asarray(example.ids, np.int32).tobytes())
                    mask.write(np.asarray(example.mask, np.bool_).tobytes())
        np.save(work / "lengths.npy", np.asarray(lengths, np.int64))
        np.save(work / "sequences.npy", np.asarray(sequences, np.int64))
        write_json(work / "reasons.json", reasons)
        try:
            made = seal(work, place, "tokens", {"rows": len(rows), "tokens": sum(lengths)})
        except UsageError:  # another run has made the same meanwhile
            made = open_artifact(place, "tokens")
    for old in artifacts(place.parent)[:-KEPT]:
        with suppress(OSError):  # on Windows, what another run has mapped stays
            shutil.rmtree(old)
    return made


def _load(made: Artifact, rows: Sequence[Row]) -> list[Rendered]:
    lengths, sequences = (np.load(made.path / f"{name}.npy") for name in ("lengths", "sequences"))
    ids, mask = _mapped(made.path / "ids.bin", np.int32), _mapped(made.path / "mask.bin", np.bool_)
    spans = itertools.pairwise([0, *np.cumsum(lengths).tolist()])
    reasons = read_json(made.path / "reasons.json")
    found = []
    for number, (row, count) in enumerate(zip(rows, sequences.tolist(), strict=True)):
        examples = tuple(Stored(ids[a:b], mask[a:b], row.id) for a, b in itertools.islice(spans, count))
        found.append(Rendered(row, examples, *reasons.get(str(number), ())))
    return found


def _mapped(file: Path, kind: Any) -> npt.NDArray[Any]:
    """An empty file cannot be mapped."""
    return np.asarray(np.memmap(file, kind, "r")) if file.stat().st_size else np.empty(0, kind)
