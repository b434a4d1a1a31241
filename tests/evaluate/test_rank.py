"""A file of votes to the facts of `rank`: the contract, and every row that is wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import DataError
from tunesmith.evaluate.rank import facts, read_votes, table

MODELS = ["base", "run-1", "run-2"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def votes(items: int = 40, raters: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """Later models are better; each rater errs one time in ten."""
    rng, rows = random.Random(seed), []
    for item in range(items):
        a, b = rng.sample(MODELS, 2)
        better = "a" if (MODELS.index(a) - MODELS.index(b)) + rng.gauss(0, 0.8) > 0 else "b"
        for rater in range(raters):
            winner = better if rng.random() < 0.9 else rng.choice(["a", "b", "tie", "both_bad"])
            rows.append({"item": item, "a": a, "b": b, "winner": winner, "rater": f"rater {rater}"})
    return rows


def clicks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rng = random.Random(1)
    units = {(row["item"], row["a"], row["b"]) for row in rows}
    return [
        {"item": i, "a": a, "b": b, "winner": rng.choice(["a", "b", "tie", "both_bad"]), "rater": "clicker"}
        for i, a, b in sorted(units)
    ]


def test_the_verb_prints_the_contract_outside_any_project(tunesmith: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "votes.jsonl", votes())
    said = tunesmith("rank", "votes.jsonl", "--json", cwd=tmp_path)
    assert said.code == 0
    assert [one["name"] for one in said.json["models"]] == MODELS[::-1]
    for one in said.json["models"]:
        assert one.keys() >= {"name", "rating", "low", "high", "n"}
        assert one["low"] < one["rating"] < one["high"]
    assert sum(one["n"] for one in said.json["models"]) == 2 * 120
    assert (said.json["raters"], said.json["votes"], said.json["items"], said.json["connected"]) == (3, 120, 40, True)
    assert 0.4 < said.json["agreement"] < 1
    assert "run-2" in said.err
    assert "120 votes on 40 items by 3 raters; agreement (alpha)" in said.err


def test_the_order_of_the_lines_changes_nothing_but_the_display_of_elo(tmp_path: Path) -> None:
    rows = votes()
    first = facts(read_votes(write(tmp_path / "a.jsonl", rows)))
    second = facts(read_votes(write(tmp_path / "b.jsonl", random.Random(5).sample(rows, len(rows)))))
    elo = [[one.pop("elo") for one in found["models"]] for found in (first, second)]
    assert elo[0] != elo[1]
    assert first == second


def test_a_rater_who_clicks_at_random_lowers_agreement_and_is_named(tmp_path: Path) -> None:
    rows = votes()
    before = facts(read_votes(write(tmp_path / "a.jsonl", rows)))
    after = facts(read_votes(write(tmp_path / "b.jsonl", rows + clicks(rows))))
    assert after["agreement"] < before["agreement"] - 0.15
    shares = {one["rater"]: one["with_others"] for one in after["by_rater"]}
    assert shares["clicker"] == min(shares.values()) < 0.5
    assert f"clicker: 40 votes, {shares['clicker']:.0%} as the others" in table(after)


def test_votes_without_a_rater_are_of_one_person(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "rater"} for row in votes(raters=1)]
    found = facts(read_votes(write(tmp_path / "a.jsonl", rows)))
    assert (found["raters"], found["agreement"], found["agreement_n"]) == (1, None, 0)
    assert "agreement NOT RUN" in table(found)


def test_what_weakens_a_ranking_is_said(tmp_path: Path) -> None:
    rows = [{"item": n, "a": "x", "b": "y", "winner": "a"} for n in range(4)]
    rows += [{"item": n, "a": "u", "b": "v", "winner": "ab"[n % 2]} for n in range(4)]
    found = facts(read_votes(write(tmp_path / "a.jsonl", rows)))
    assert not found["connected"]
    assert [note.split(":")[0] for note in found["notes"]] == [
        "never compared with one another, so their ratings are on scales of their own",
        "a model won or lost every vote",
    ]
    assert all(f"note: {note}" in table(found) for note in found["notes"])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"a": "x", "b": "y", "winner": "a"}, "a vote without 'item'"),
        ({"item": "1", "b": "y", "winner": "a"}, "a vote without 'a'"),
        ({"item": "1", "a": "x", "b": ["y"], "winner": "a"}, "'b' is no text"),
        ({"item": "1", "a": "x", "b": "y", "winner": "x"}, "the winner 'x'"),
        ({"item": "1", "a": "x", "b": "x", "winner": "a"}, "'x' against itself"),
        ({"item": "1", "a": "x", "b": "y"}, "a vote without 'winner'"),
    ],
)
def test_a_row_that_is_no_vote_is_named_with_its_line(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    file = write(tmp_path / "votes.jsonl", [{"item": 1, "a": "x", "b": "y", "winner": "tie"}, row])
    with pytest.raises(DataError) as caught:
        read_votes(file)
    assert str(caught.value).startswith(f"{file}:2: {complaint}")


def test_a_file_without_votes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no votes"):
        read_votes(write(tmp_path / "votes.jsonl", []))
