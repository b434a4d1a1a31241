import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.compare.candidates import Example, read_candidates
from tunesmith.core.errors import DataError


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_go_to_the_task_that_they_name_or_to_their_files_name(tmp_path: Path) -> None:
    write(tmp_path / "routing.jsonl", {"prompt": "a", "completion": "b"}, {"question": "c", "task": "faq"})
    write(tmp_path / "faq.jsonl", {"instruction": "d", "input": "e", "answer": "f"})
    (tmp_path / "notes.txt").write_text("no rows")
    assert read_candidates([tmp_path]) == {
        "faq": [Example("d\n\ne", ("f",)), Example("c")],
        "routing": [Example("a", ("b",))],
    }


def test_several_references_and_grades_are_kept(tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", {"prompt": "a", "references": ["b", "c", " "], "grades": ["bad", "good"]})
    assert read_candidates([file]) == {"t": [Example("a", ("b", "c"), ("bad", "good"))]}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"completion": "b"}, "a row without a prompt"),
        ({"prompt": " ", "completion": "b"}, "a row without a prompt"),
        ({"prompt": "a", "references": "b"}, "lists of texts"),
        ({"prompt": "a", "grades": ["great"]}, "the grade 'great'"),
    ],
)
def test_a_row_that_is_no_example_is_told_with_its_line(tmp_path: Path, row: dict[str, Any], what: str) -> None:
    file = write(tmp_path / "t.jsonl", {"prompt": "a"}, row)
    with pytest.raises(DataError, match=what) as error:
        read_candidates([file])
    assert error.value.where == f"{file}:2"


def test_a_place_without_tasks_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.jsonl"):
        with pytest.raises(DataError, match="holds no candidate tasks"):
            read_candidates([path])
