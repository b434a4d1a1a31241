"""The stage over models that answer by rule: which prompts are chosen, what is counted, what is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tunesmith.compare import report
from tunesmith.compare.answering import Local
from tunesmith.compare.config import CompareConfig
from tunesmith.compare.stage import CompareInputs, run
from tunesmith.core.artifact import Artifact, open_artifact
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl
from tunesmith.core.records import Meta, Row, pair
from tunesmith.engine.base import Sampling
from tunesmith.metrics.overlap import exact_match, token_f1

ARMS = ["zero-shot", "few-shot", "retrieval", "tuned", "tuned + retrieval"]
ONLY = CompareConfig(shots=(1,), passages=(1,), latency_rows=3)


def score(row: Row, text: str) -> Mapping[str, float | None]:
    return {"exact_match": exact_match(text, row.reference), "f1": token_f1(text, row.reference), "length": 1.0}


def right(text: str) -> str:
    """The answer to the last question of a prompt."""
    thing = text.split("the ")[-1].rstrip("?")
    return f"The {thing} is here."


def copying(text: str) -> str:
    """The first answer that stands in a prompt, or nothing."""
    return f"The {text.split('The ')[1].split('.')[0]}." if "The " in text else "nothing"


@pytest.fixture
def inputs(rule: Callable[..., Any], make_set: Callable[..., Artifact], make_rows: Any) -> Callable[..., CompareInputs]:
    """`inputs(base, tuned, ...)`: 12 test rows, 30 training rows, 8 valid rows."""

    def make(
        base: Callable[[str], str] = copying,
        tuned: Callable[[str], str] | None = right,
        context: int = 1 << 20,
        set_: Artifact | None = None,
        **more: Any,
    ) -> CompareInputs:
        found = set_ or make_set(make_rows(20, 30), make_rows(0, 12), make_rows(12, 8))
        engines = [rule(one, context) if one else None for one in (base, tuned)]
        sampling = Sampling(max_new_tokens=8)
        local = [Local(engine, engine.renderer, sampling, 0.1) if engine else None for engine in engines]
        assert local[0] is not None
        higher = {"exact_match": True, "f1": True, "length": None}
        return CompareInputs(found, local[0], local[1], score, higher.get, **more)

    return make


def made(config: CompareConfig, inputs: CompareInputs, out: Path) -> dict[str, Any]:
    return dict(read_json(run(config, inputs, out / "compare-1").path / "report.json"))


def test_metrics_that_were_left_out_are_named_with_what_scores_them(inputs: Callable[..., Any], tmp_path: Path) -> None:
    folder = run(ONLY, inputs(not_run=["perplexity"]), tmp_path / "compare-1").path
    assert "perplexity: NOT RUN, for more than an answer and its row is needed; tunesmith evaluate" in (
        folder / "report.md"
    ).read_text("utf-8")


def test_five_arms_answer_the_same_rows_and_the_best_is_named(inputs: Callable[..., Any], tmp_path: Path) -> None:
    found = made(ONLY, inputs(lambda text: "nothing"), tmp_path)
    assert [arm["name"] for arm in found["arms"]] == ARMS
    assert {arm["n"] for arm in found["arms"]} == {12} == {found["n"]}
    tuned = found["arms"][3]
    assert tuned["metrics"]["exact_match"] == {
        "value": 1.0,
        "low": pytest.approx(0.735, abs=0.001),
        "high": 1.0,
        "n": 12,
    }
    assert found["leading"] == ["tuned", "tuned + retrieval"]
    assert found["verdict"] == "cannot tell which is best on f1: tuned, tuned + retrieval"
    assert len(found["pairs"]) == 10


def test_without_a_tuned_model_there_are_three_arms(inputs: Callable[..., Any], tmp_path: Path) -> None:
    assert [arm["name"] for arm in made(ONLY, inputs(tuned=None), tmp_path)["arms"]] == ARMS[:3]


def test_an_endpoint_adds_two_arms_under_its_name(inputs: Callable[..., Any], tmp_path: Path) -> None:
    speaker = inputs().base
    found = made(ONLY, inputs(endpoint=("big", speaker)), tmp_path)
    assert [arm["name"] for arm in found["arms"]][5:] == ["big zero-shot", "big few-shot"]


def test_the_prompt_is_chosen_on_valid_rows_and_never_on_the_test(
    inputs: Callable[..., Any], make_set: Callable[..., Artifact], make_rows: Any, tmp_path: Path
) -> None:
    """Only with three examples the model is right on valid rows; with one it would be right on test rows."""
    test, valid = make_rows(0, 12), make_rows(12, 8)
    names = {row.question.split("the ")[-1].rstrip("?") for row in valid}

    def picky(text: str) -> str:
        thing = text.split("the ")[-1].rstrip("?")
        return right(text) if (text.count("Where") == 4) == (thing in names) else "nothing"

    config = CompareConfig(shots=(1, 3), passages=(1,), latency_rows=1)
    found = made(config, inputs(picky, set_=make_set(make_rows(20, 30), test, valid)), tmp_path)
    few = found["arms"][1]
    assert few["prompt"] == "3 nearest examples"
    assert [(one["recipe"], one["mean"]) for one in few["tried"]] == [
        ("1 nearest examples", 0.0),
        ("3 nearest examples", 1.0),
        ("1 random examples", 0.0),
        ("3 random examples", 1.0),
    ]
    assert few["metrics"]["f1"]["value"] == 0.0


def test_without_valid_rows_the_first_prompt_is_taken_and_nothing_was_tried(
    inputs: Callable[..., Any], make_set: Callable[..., Artifact], make_rows: Any, tmp_path: Path
) -> None:
    found = made(CompareConfig(), inputs(set_=make_set(make_rows(20, 30), make_rows(0, 12))), tmp_path)
    assert [(arm["prompt"], arm["tried"]) for arm in found["arms"][1:3]] == [
        ("1 nearest examples", []),
        ("1 nearest passages", []),
    ]


def test_prompts_that_do_not_fit_lose_whole_examples_and_are_counted(
    inputs: Callable[..., Any], tmp_path: Path
) -> None:
    """A question has 4 tokens, an example 8, an answer may have 8: with 30 tokens two of four examples fit."""
    config = CompareConfig(shots=(4,), passages=(1,), latency_rows=1, search_rows=0)
    few = made(config, inputs(context=30), tmp_path)["arms"][1]
    assert (few["dropped"], few["prompts_cut"], few["prompt_tokens"]) == (24, 12, 12 * 20)


def test_rows_that_no_model_can_be_asked_are_left_out_of_every_arm_and_counted(
    inputs: Callable[..., Any], make_set: Callable[..., Artifact], make_rows: Any, tmp_path: Path
) -> None:
    test = [*make_rows(0, 3), Row(text="raw"), pair("word " * 40, "a", meta=Meta(group="long"))]
    found = made(ONLY, inputs(context=30, set_=make_set(make_rows(20, 30), test)), tmp_path)
    assert (found["n"], found["skipped"]) == (3, {"no question and answer": 1, "prompt too long": 1})


def test_tokens_are_exact_sums_and_costs_come_from_the_time_of_requests_asked_alone(
    inputs: Callable[..., Any], tmp_path: Path
) -> None:
    given = inputs()
    ticks = iter(range(1000))
    clocked = Local(given.tuned.engine, given.tuned.renderer, given.tuned.sampling, 3.6, lambda: float(next(ticks)))
    found = made(ONLY, CompareInputs(given.set_, given.base, clocked, score, given.higher), tmp_path)
    tuned = found["arms"][3]
    assert (tuned["prompt_tokens"], tuned["output_tokens"]) == (12 * 4, 12 * 4)
    assert tuned["latency_ms"] == {"p50": 1000.0, "p95": 1000.0, "n": 3}  # of 4 asked alone, the first warms up
    assert tuned["cost_per_1000"] == pytest.approx(1.0)
    assert tuned["requests_per_second"] > 0
    assert [arm["leaves_machine"] for arm in found["arms"]] == [False] * 5


def test_predictions_and_scores_of_every_arm_can_be_read_by_other_verbs(
    inputs: Callable[..., Any], tmp_path: Path
) -> None:
    found = run(ONLY, inputs(), tmp_path / "compare-1")
    assert open_artifact(found.path, "compare").facts["metric"] == "f1"
    names = [f"{name}.jsonl" for name in ("few-shot", "retrieval", "tuned-retrieval", "tuned", "zero-shot")]
    for folder in ("predictions", "scores"):
        assert sorted(path.name for path in (found.path / folder).iterdir()) == names
    first = next(read_jsonl(found.path / "predictions" / "tuned.jsonl"))
    assert first["output"] == first["reference"]
    assert {"id", "prompt", "finish", "prompt_tokens", "output_tokens", "dropped"} < first.keys()
    scores = list(read_jsonl(found.path / "scores" / "tuned.jsonl"))
    assert all(line.keys() == {"id", "score", "group"} and line["score"] == 1.0 for line in scores)
    assert scores[0]["group"] == "lantern0"


def test_the_pages_say_the_verdict_first_and_need_nothing_else(inputs: Callable[..., Any], tmp_path: Path) -> None:
    folder = run(ONLY, inputs(lambda text: "<script>alert(1)</script>"), tmp_path / "compare-1").path
    found = read_json(folder / "report.json")
    html, text = ((folder / name).read_text("utf-8") for name in ("report.html", "report.md"))
    assert text.startswith(f"# compare-1: {found['verdict']}\n")
    assert html.index("<h1>") < html.index(found["verdict"], html.index("<h1>")) < html.index("<table")
    assert "<script" not in html
    assert "&lt;<mark>script&gt;" in html
    assert "http" not in html.replace('http-equiv="', "")
    assert all(line in text for line in report.table(found).splitlines())


def test_the_table_has_a_line_for_each_arm(inputs: Callable[..., Any], tmp_path: Path) -> None:
    head, line, *arms = report.table(made(ONLY, inputs(), tmp_path)).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")][:3] == ["arm", "n", "f1 [95 %]"]
    assert len({len(one) for one in (head, line, *arms)}) == 1
    assert arms[3].startswith("| tuned             | 12 | 1.000 [0.735, 1.000] |")
    assert arms[3].rstrip(" |").endswith("no")


def test_a_limit_takes_the_same_rows_each_time_and_a_higher_one_keeps_them(
    inputs: Callable[..., Any], tmp_path: Path
) -> None:
    ids = []
    for limit in (3, 5):
        config = ONLY.model_copy(update={"limit": limit})
        folder = run(config, inputs(), tmp_path / f"compare-{limit}").path
        ids.append({line["id"] for line in read_jsonl(folder / "scores" / "tuned.jsonl")})
    assert (len(ids[0]), len(ids[1])) == (3, 5)
    assert ids[0] < ids[1]


@pytest.mark.parametrize(
    ("field", "value", "seen"),
    [
        ("metric", "exact_match", lambda found: found["metric"]),
        ("shots", (2,), lambda found: found["arms"][1]["prompt"]),
        ("passages", (2,), lambda found: found["arms"][2]["prompt"]),
        ("search_rows", 0, lambda found: [arm["tried"] for arm in found["arms"]]),
        ("latency_rows", 7, lambda found: found["arms"][0]["latency_ms"]["n"]),
        ("limit", 4, lambda found: found["n"]),
        ("seed", 3, lambda found: [one["mean"] for one in found["arms"][1]["tried"]]),
    ],
)
def test_every_setting_changes_the_comparison(
    inputs: Callable[..., Any], tmp_path: Path, field: str, value: Any, seen: Callable[[dict[str, Any]], object]
) -> None:
    def varied(text: str) -> str:
        return right(text) if "ladder" in text else "The thing"  # one of the three random examples of seed 0

    plain = CompareConfig(shots=(1, 3), passages=(1,), latency_rows=3)
    changed = plain.model_copy(update={field: value})
    assert seen(made(plain, inputs(varied), tmp_path / "a")) != seen(made(changed, inputs(varied), tmp_path / "b"))


@pytest.mark.parametrize("metric", ["length", "f2"])
def test_a_metric_that_ranks_nothing_gives_no_verdict(inputs: Callable[..., Any], tmp_path: Path, metric: str) -> None:
    with pytest.raises(UsageError, match=f"metric = '{metric}' does not rank every answer"):
        made(CompareConfig(metric=metric), inputs(), tmp_path)


def test_a_set_without_test_rows_cannot_be_compared_on(
    inputs: Callable[..., Any], make_set: Callable[..., Artifact], make_rows: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no test row"):
        made(ONLY, inputs(set_=make_set(make_rows(20, 5), [])), tmp_path)


def test_a_name_that_is_taken_is_told_before_any_work(inputs: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "compare-1").mkdir()
    given = inputs()
    with pytest.raises(UsageError, match="exists"):
        made(ONLY, given, tmp_path)
    assert given.base.engine.calls == []
