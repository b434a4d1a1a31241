import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import DataError
from tunesmith.diagnose.cases import Case, of_files, paired_with


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_two_files_are_paired_by_id_whatever_their_order(tmp_path: Path) -> None:
    new = write(
        tmp_path / "new.jsonl", {"id": 1, "prompt": "p", "output": "b"}, {"id": 2, "prompt": "q", "output": "d"}
    )
    old = write(
        tmp_path / "old.jsonl", {"id": 2, "prompt": "q", "output": "c"}, {"id": 1, "prompt": "p", "output": "a"}
    )
    first, second = of_files(new, old)
    assert (first.said["base"], first.said["tuned"]) == (("a", ""), ("b", ""))
    assert (second.said["base"][0], second.place) == ("c", "new.jsonl:2")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"id": 1, "prompt": "p"}, "no text under 'output'"),
        ({"prompt": "p", "output": "o"}, "no text under 'id'"),
        ({"id": 1, "prompt": "p", "output": "o", "reference": 3}, "no text under 'reference'"),
    ],
)
def test_a_row_that_is_none_is_named_by_its_line(tmp_path: Path, row: dict[str, Any], what: str) -> None:
    path = write(tmp_path / "p.jsonl", {"id": 0, "prompt": "p", "output": "o"}, row)
    with pytest.raises(DataError, match=what) as error:
        of_files(path)
    assert error.value.where == f"{path}:2"


def test_ids_stand_once_and_in_both_files(tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "p", "output": "o"}
    with pytest.raises(DataError, match="stands in line 1 too"):
        of_files(write(tmp_path / "twice.jsonl", row, row))
    one, other = write(tmp_path / "1.jsonl", row), write(tmp_path / "2.jsonl", row | {"id": "b"})
    with pytest.raises(DataError, match="2 ids stand in one"):
        of_files(one, other)
    with pytest.raises(DataError, match="does not exist"):
        of_files(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="has no rows"):
        of_files(write(tmp_path / "empty.jsonl"))


def test_only_rows_of_both_evaluations_are_compared() -> None:
    def case(key: str, text: str) -> Case:
        return Case(key, "p", "r", "", "f:1", {"base": ("", ""), "tuned": (text, "stop")})

    (both,) = paired_with([case("a", "old"), case("b", "old")], [case("b", "new"), case("c", "new")])
    assert (both.id, both.said) == ("b", {"before": ("old", "stop"), "after": ("new", "stop")})
