"""What is diagnosed: answers to the same prompt, of one model or of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_jsonl, read_numbered


@dataclass(frozen=True)
class Case:
    """`said`: arm -> (answer, how it ended: "stop", "length" or "" for unknown). `place`: file:line of the row."""

    id: str
    prompt: str
    reference: str
    group: str
    place: str
    said: Mapping[str, tuple[str, str]]

    @property
    def cluster(self) -> str:
        """What is resampled together."""
        return self.group or self.id


def of_eval(artifact: Artifact) -> list[Case]:
    """The rows of an evaluation, with the arms "base" and "tuned"."""
    return [
        Case(
            row["id"],
            row["prompt"],
            row["reference"],
            row["group"],
            f"{row['source']}:{row['line']}",
            {arm: (row[arm], row[f"{arm}_finish"]) for arm in ("base", "tuned")},
        )
        for row in read_jsonl(artifact.path / "predictions.jsonl")
    ]


def of_files(path: Path, before: Path | None = None) -> list[Case]:
    """Rows {id, prompt, output, reference?, finish?, group?} as the arm "tuned"; those of `before`, by id, as "base".

    Raises DataError with file:line on a row that is not one, an id that stands twice, or ids that differ.
    """
    rows, old = _read(path), _read(before) if before else {}
    if before and (alone := sorted(rows.keys() ^ old.keys())):
        what = f"{len(alone)} ids stand in one of {path} and {before} only, such as {alone[0]}"
        raise DataError(what, expected="the same ids in both files")
    if not rows:
        raise DataError(f"{path} has no rows", expected=EXPECTED)
    return [_case(row, old.get(key), f"{path.name}:{row['line']}") for key, row in rows.items()]


EXPECTED = 'a line a row: {"id", "prompt", "output"}, and where there is one "reference"'
_OPTIONAL = ("reference", "finish", "group")


def _case(row: Mapping[str, Any], old: Mapping[str, Any] | None, place: str) -> Case:
    arms = {"base": old, "tuned": row}
    said = {arm: (one["output"], one["finish"]) for arm, one in arms.items() if one is not None}
    return Case(row["id"], row["prompt"], row["reference"], row["group"], place, said)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist", expected="a file of predictions")
    found: dict[str, dict[str, Any]] = {}
    for line, obj in read_numbered(path):
        where = f"{path}:{line}"
        texts = {key: obj.get(key) for key in ("prompt", "output")} | {key: obj.get(key) or "" for key in _OPTIONAL}
        wrong = [key for key, value in texts.items() if not isinstance(value, str)]
        if wrong or not isinstance(obj.get("id"), str | int):
            raise DataError(f"no text under '{(wrong or ['id'])[0]}'", where=where, expected=EXPECTED)
        key = str(obj["id"])
        if key in found:
            raise DataError(f"the id {key} stands in line {found[key]['line']} too", where=where, expected="each once")
        found[key] = {"id": key, "line": line, **texts}
    return found


def paired_with(cases: Sequence[Case], later: Sequence[Case]) -> list[Case]:
    """The rows of two evaluations that are the same: the arms "before" and "after" are the tuned models of each."""
    tuned = {case.id: case.said["tuned"] for case in later}
    return [
        Case(c.id, c.prompt, c.reference, c.group, c.place, {"before": c.said["tuned"], "after": tuned[c.id]})
        for c in cases
        if c.id in tuned
    ]
