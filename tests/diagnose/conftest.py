"""Artifacts by hand: raw rows, a set, an evaluation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import write_jsonl, write_rows
from tunesmith.core.records import Row


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Artifact]:
    """`make(kind, name, facts, rows={"train": [...]}, lines={"predictions": [...]})`."""

    def artifact(
        kind: str,
        name: str,
        facts: Mapping[str, Any] | None = None,
        rows: Mapping[str, Sequence[Row]] | None = None,
        lines: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> Artifact:
        with writing(tmp_path / kind / name) as work:
            for file, some in (rows or {}).items():
                write_rows(work / f"{file}.jsonl", some)
            for file, objects in (lines or {}).items():
                write_jsonl(work / f"{file}.jsonl", (dict(one) for one in objects))
            return seal(work, tmp_path / kind / name, kind, dict(facts or {}))

    return artifact


@pytest.fixture
def prediction() -> Callable[..., dict[str, Any]]:
    """A line of predictions.jsonl."""

    def line(number: int, base: str, tuned: str, reference: str = "", group: str = "") -> dict[str, Any]:
        place = {"id": f"row-{number}", "source": "faq.jsonl", "line": number, "group": group, "origin": "human"}
        said = {"base": base, "tuned": tuned, "base_finish": "stop", "tuned_finish": "stop", "arms": {}}
        return {**place, "prompt": f"What is {number}?", "reference": reference or f"It is {number}.", **said}

    return line
