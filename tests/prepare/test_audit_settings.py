"""What the settings `reject` and `benchmarks`, and training's batch size, change in a set."""

from pathlib import Path

import pytest

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl, write_jsonl, write_rows
from tunesmith.core.records import Meta, pair
from tunesmith.prepare.stage import PrepareConfig, run

QUESTION = "What happens to you if you eat too many seeds of the watermelon at once?"


@pytest.fixture
def raw(tmp_path: Path) -> Artifact:
    asked = [f"{chr(97 + i) * 5} {chr(97 + i * 7 % 26) * 6} {i * 7919}" for i in range(26)]
    rows = [pair(question, f"Answer {i}.", meta=Meta("f", i)) for i, question in enumerate(asked)]
    rows += [pair("aaaaa and null", "null", meta=Meta("f", 26)), pair(QUESTION, "Nothing.", meta=Meta("f", 27))]
    with writing(tmp_path / "raw") as work:
        write_rows(work / "examples.jsonl", rows)
        write_jsonl(work / "rejects.jsonl", [])
        return seal(work, tmp_path / "raw", "raw", {})


def test_the_rows_of_a_rejected_finding_are_left_out_and_counted(tmp_path: Path, raw: Artifact) -> None:
    plain = run(PrepareConfig(), [raw], tmp_path / "sets")
    assert plain.facts["findings"]["null"] == 1
    made = run(PrepareConfig(reject=["null"]), [raw], tmp_path / "sets")
    assert made.facts["rejected"] == {"null": 1}
    assert made.facts["kept"] == 27 == plain.facts["kept"] - 1
    assert "null" not in made.facts["findings"]
    assert [(r["line"], r["reason"]) for r in read_jsonl(made.path / "rejects.jsonl")] == [(26, "null")]


def test_a_finding_that_does_not_exist_is_refused_with_the_nearest_name(tmp_path: Path, raw: Artifact) -> None:
    with pytest.raises(UsageError, match="did you mean 'echo'"):
        run(PrepareConfig(reject=["ecko"]), [raw], tmp_path / "sets")


def test_rows_of_a_benchmark_are_reported_and_kept(tmp_path: Path, raw: Artifact) -> None:
    file = tmp_path / "TruthfulQA.csv"
    file.write_text(f"Question,Best Answer\n{QUESTION},Nothing\n")
    made = run(PrepareConfig(benchmarks=[str(file)]), [raw], tmp_path / "sets")
    assert made.facts["kept"] == 28
    assert made.facts["findings"]["benchmark TruthfulQA.csv"] == 1
    report = (made.path / "report.md").read_text()
    assert "- TruthfulQA.csv: 1 rows hold a question of its 1 items (0 too short to compare)" in report
    with pytest.raises(DataError, match="does not exist"):
        run(PrepareConfig(benchmarks=["none.csv"]), [raw], tmp_path / "sets")


def test_steps_are_counted_at_the_batch_size_of_training(tmp_path: Path, raw: Artifact) -> None:
    made = [run(PrepareConfig(), [raw], tmp_path / f"sets-{n}", batch_size=n) for n in (2, 16)]
    measured = [read_json(m.path / "receipt.json")["quality"]["axes"]["amount"]["measured"] for m in made]
    rows = made[0].facts["train"]
    assert [m["steps_an_epoch"] for m in measured] == [-(-rows // 2), -(-rows // 16)]
