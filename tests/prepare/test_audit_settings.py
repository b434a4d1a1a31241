"""What the settings that measure change in a set: `reject`, `benchmarks`, `difficulty`; batch size and tokenizer."""

from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl, write_jsonl, write_rows
from tunesmith.core.records import Meta, pair
from tunesmith.engine.base import Score
from tunesmith.prepare.difficulty import Scorer
from tunesmith.prepare.measure import Instruments
from tunesmith.prepare.stage import PrepareConfig, run
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import train_bpe

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
    given: tuple[Any, ...] = (Instruments(batch_size=2), Instruments(batch_size=16), None)
    made = [run(PrepareConfig(), [raw], tmp_path / f"sets-{n}", instruments=one) for n, one in enumerate(given)]
    measured = [read_json(m.path / "receipt.json")["quality"]["axes"]["amount"]["measured"] for m in made]
    rows = made[0].facts["train"]
    assert [m["steps_an_epoch"] for m in measured] == [-(-rows // 2), -(-rows // 16), -(-rows // 4)]  # few rows: 4
    assert made[0].name != made[1].name


def test_tokens_are_counted_where_there_is_a_tokenizer_and_give_the_set_no_other_name(
    tmp_path: Path, raw: Artifact
) -> None:
    tokenizer = train_bpe(["Answer"], 300)
    words = run(PrepareConfig(), [raw], tmp_path / "words")
    tokens = run(PrepareConfig(), [raw], tmp_path / "tokens", instruments=Instruments(tokenizer=tokenizer))
    assert words.name == tokens.name
    assert "in tokens: NOT RUN" in (words.path / "report.md").read_text()
    assert tokens.facts["quality"]["axes"]["amount"]["measured"]["answer_tokens"] > 28
    assert "tokens of answers to learn" in (tokens.path / "report.md").read_text()


class Fake:
    """An answer costs 1 nat a token after its question, and 2 alone; one answer costs 3 after its question."""

    context = 80

    def __init__(self, odd: list[int]) -> None:
        self.odd = odd

    def generate(self, prompts: Any, sampling: Any) -> list[Any]:
        raise NotImplementedError

    def score(self, requests: Any) -> list[Score]:
        costs = [2.0 if len(prompt) == 1 else 3.0 if answer == self.odd else 1.0 for prompt, answer in requests]
        return [Score((-cost,) * len(answer)) for cost, (_, answer) in zip(costs, requests, strict=True)]


def test_difficulty_is_in_the_receipt_the_report_and_the_findings(tmp_path: Path, raw: Artifact) -> None:
    tokenizer = train_bpe(["Answer"], 300)
    engine = Fake([*tokenizer.encode("Nothing."), tokenizer.eos_id])
    tools = Instruments(scorer=Scorer("tiny", engine, Renderer(tokenizer, "plain")))
    made = run(PrepareConfig(difficulty="tiny"), [raw], tmp_path / "sets", instruments=tools)
    found = made.facts["difficulty"]
    assert (found["model"], found["answers"] + found["left_out"]) == ("tiny", made.facts["kept"])
    assert found["left_out"] == 1  # the question of seeds is too long for it
    assert set(found["perplexity"].values()) == {2.718}
    assert set(found["ifd"].values()) == {0.5}
    report = (made.path / "report.md").read_text()
    assert "| perplexity | 2.718 | 2.718 | 2.718 | 2.718 | 2.718 |" in report
    assert "difficulty by tiny: median perplexity 2.718, ifd 0.5 (27 answers, 1 left out)" in report
    engine.context = 200
    again = run(PrepareConfig(difficulty="tiny"), [raw], tmp_path / "sets", instruments=tools)
    assert (again.facts["difficulty"]["left_out"], again.facts["difficulty"]["ifd_of_1_or_more"]) == (0, 1)
    (hit,) = [one for one in read_jsonl(again.path / "findings.jsonl") if one["finding"] == "mismatch"]
    assert (hit["line"], hit["detail"]) == (27, "IFD 1.50")
    assert again.name != made.name
    with pytest.raises(UsageError, match="need a model"):
        run(PrepareConfig(difficulty="tiny"), [raw], tmp_path / "sets")
    with pytest.raises(UsageError, match="need a model"):
        run(PrepareConfig(judge=3), [raw], tmp_path / "sets")
