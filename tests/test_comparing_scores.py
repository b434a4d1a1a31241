"""`tunesmith compare --scores`: the contract, its figures by hand, and every file that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from tunesmith.comparing_scores import scores_door
from tunesmith.core.errors import DataError

CONTRACT = {"n", "a", "b", "difference", "low", "high", "p", "test", "verdict", "fixed", "introduced"}
Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> Callable[[Rows, Rows], tuple[Path, Path]]:
    return lambda a, b: (write(tmp_path / "A.jsonl", a), write(tmp_path / "B.jsonl", b))


def binary(up: int, down: int, same: int) -> tuple[Rows, Rows]:
    values = [(0, 1)] * up + [(1, 0)] * down + [(1, 1)] * same
    return tuple([{"id": str(n), "score": pair[arm]} for n, pair in enumerate(values)] for arm in (0, 1))  # type: ignore[return-value]


def test_the_verb_prints_the_contract_outside_any_project(
    tunesmith: Callable[..., Any], files: Any, tmp_path: Path
) -> None:
    files(*binary(20, 4, 76))
    said = tunesmith("compare", "--scores", "A.jsonl", "B.jsonl", "--json", cwd=tmp_path)
    assert said.code == 0
    assert said.json.keys() >= CONTRACT
    assert (said.json["n"], said.json["a"], said.json["b"]) == (100, 0.8, 0.96)
    assert said.json["difference"] == pytest.approx(0.16)
    assert (said.json["fixed"], said.json["introduced"], said.json["verdict"]) == (20, 4, "better")
    assert said.json["test"] == "exact McNemar"
    assert said.json["p"] == pytest.approx(binomtest(4, 24).pvalue)
    assert 0 < said.json["low"] < 0.16 < said.json["high"] < 0.3
    assert said.err.startswith("B is better than A\n  100 rows in both files\n")


def test_the_other_way_round_is_the_mirror(files: Any) -> None:
    a, b = files(*binary(20, 4, 76))
    forth, back = scores_door(a, b)[0], scores_door(b, a)[0]
    assert back["verdict"] == "worse"
    assert (back["difference"], back["low"], back["high"]) == pytest.approx(
        (-forth["difference"], -forth["high"], -forth["low"])
    )
    assert (back["fixed"], back["introduced"], back["p"]) == (4, 20, forth["p"])


def test_what_cannot_be_told_is_not_told_and_the_rows_that_could_are(files: Any) -> None:
    facts, text = scores_door(*files(*binary(9, 5, 86)))
    assert facts["verdict"] == "cannot tell"
    assert text.startswith("cannot tell A and B apart")
    assert facts["detectable"] > 0.04
    assert facts["rows_needed"] == 685  # ((1.96 sqrt 0.14 + 0.8416 sqrt 0.1384) / 0.04)^2
    assert "685 rows like these would show it" in text


def test_groups_are_counted_and_make_copies_worth_nothing(files: Any) -> None:
    a, b = binary(9, 1, 30)
    once = scores_door(*files(a, b))[0]
    copies = [
        [{**row, "id": f"{row['id']} {k}", "group": row["id"]} for row in rows for k in range(5)] for rows in (a, b)
    ]
    many, text = scores_door(*files(*copies))
    assert (many["n"], many["clusters"], many["test"]) == (200, 40, "exact sign-flip")
    assert many["p"] == pytest.approx(once["p"])
    assert many["low"] <= once["low"] + 0.02
    assert "200 rows in 40 groups in both files" in text


def test_items_of_one_file_alone_are_counted_and_said(files: Any) -> None:
    a, b = binary(5, 1, 10)
    facts, text = scores_door(
        *files([*a, {"id": "x", "score": 1}], [*b, {"id": "y", "score": 1}, {"id": "z", "score": 0}])
    )
    assert (facts["n"], facts["only_in_a"], facts["only_in_b"]) == (16, 1, 2)
    assert "left out: 1 only in A, 2 only in B" in text


def test_the_order_of_the_rows_and_whole_numbers_as_ids_do_not_matter(files: Any) -> None:
    a, b = binary(5, 1, 10)
    facts = scores_door(*files(a, b))[0]
    numbers = [{**row, "id": int(row["id"])} for row in b[::-1]]
    assert scores_door(*files(a, numbers))[0] == pytest.approx(facts)


def test_true_and_false_are_scores(files: Any) -> None:
    rows = [[{**row, "score": bool(row["score"])} for row in part] for part in binary(5, 1, 10)]
    assert scores_door(*files(*rows))[0] == scores_door(*files(*binary(5, 1, 10)))[0]


def test_scores_that_never_differ_say_nothing(files: Any) -> None:
    facts, text = scores_door(*files(*binary(0, 0, 12)))
    assert (facts["difference"], facts["verdict"], facts["rows_needed"], facts["p"]) == (0.0, "cannot tell", None, 1.0)
    assert facts["low"] < 0 < facts["high"]
    assert "four times in five" not in text


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"score": 1}', "B.jsonl:2: a row without an id"),
        ('{"id": true, "score": 1}', "B.jsonl:2: a row without an id"),
        ('{"id": "1"}', "B.jsonl:2: '1' has no score"),
        ('{"id": "1", "score": "0.5"}', "B.jsonl:2: the score of '1' is no number"),
        ('{"id": "1", "score": null}', "B.jsonl:2: the score of '1' is no number"),
        ('{"id": "1", "score": 1e999}', "B.jsonl:2: the score of '1' is no number"),
        ('{"id": "1", "score": NaN}', "B.jsonl:2:1: not valid JSON: NaN is not a JSON number"),
        ('{"id": "0", "score": 1}', "B.jsonl:2: the id '0' stands in "),
        ('{"id": "1", "score": 1, "group": "other"}', "B.jsonl:2: '1' is of group 'other', and of 'one' in "),
        ("[1, 2]", "B.jsonl:2: a list, not an object"),
        ('{"id": "1", ', "B.jsonl:2:"),
    ],
)
def test_a_row_that_is_wrong_is_named_with_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    a = write(tmp_path / "A.jsonl", [{"id": str(n), "score": 1, "group": "one"} for n in range(3)])
    b = tmp_path / "B.jsonl"
    b.write_text('{"id": "0", "score": 0}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        scores_door(a, b)
    assert str(caught.value).startswith(f"{tmp_path}/{complaint}")


def test_files_without_a_common_id_and_empty_files_are_refused(files: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="have no id in common"):
        scores_door(*files([{"id": "x", "score": 1}], [{"id": "y", "score": 1}]))
    with pytest.raises(DataError, match=r"B\.jsonl: no scores"):
        scores_door(*files([{"id": "x", "score": 1}], []))


def test_a_missing_file_and_another_flag_are_usage_errors(
    tunesmith: Callable[..., Any], files: Any, tmp_path: Path
) -> None:
    files(*binary(1, 1, 1))
    assert tunesmith("compare", "--scores", "A.jsonl", "C.jsonl", cwd=tmp_path).code == 2
    both = tunesmith("compare", "--scores", "A.jsonl", "B.jsonl", "--limit", 3, cwd=tmp_path)
    assert (both.code, "--scores with another flag" in both.err) == (2, True)
