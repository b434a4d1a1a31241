from typing import Any

import pytest

from tunesmith.core.records import Meta, pair
from tunesmith.engine.base import Generation
from tunesmith.evaluate.catalogue import meaning, metric_names
from tunesmith.evaluate.report import _as_family, build, gain, table
from tunesmith.evaluate.score import Item, Scorer
from tunesmith.metrics.style import Vocabulary, detectors

VOCABULARY = Vocabulary.of(["alpha beta gamma delta"])


def items(count: int, tuned: Any, arms: dict[str, str] | None = None, names: tuple[str, ...] = ("f1",)) -> list[Item]:
    scorer = Scorer(list(names), frozenset(), VOCABULARY)
    rows = [pair(f"q{n}", "alpha beta", meta=Meta("f", n, group=f"g{n}")) for n in range(count)]
    base = Generation("gamma", (), "stop")
    return [scorer.item(row, base, Generation(tuned(n), (), "stop"), arms or {}) for n, row in enumerate(rows)]


def test_the_table_has_a_line_a_metric_with_interval_verdict_and_n() -> None:
    some = items(8, lambda n: "alpha beta" if n else "gamma", {"majority": "alpha"}, ("f1", "length_ratio", "rouge1"))
    lines = table(build(some, detectors(VOCABULARY), {}, seed=0)).splitlines()
    assert lines[0].split() == ["metric", "base", "tuned", "difference", "[95", "%]", "verdict", "n", "majority"]
    head, base, tuned, difference, *interval, verdict, n, arm = lines[1].split()
    assert (head, base, tuned, difference, verdict, n, arm) == (
        "f1",
        "0.000",
        "0.875",
        "+0.875",
        "better",
        "8",
        "0.667",
    )
    assert len(interval) == 2
    assert lines[2].split()[-3:] == ["-", "8", "0.500"]  # no length is better than another
    assert not any("precision" in line for line in lines)
    assert [line.split()[0] for line in lines if line.startswith("against")] == ["against"]
    assert lines[-3].split()[0] == "misspelling"


def test_what_cannot_be_measured_is_a_dash_and_never_a_number() -> None:
    some = items(1, lambda n: "alpha", names=("fields", "f1"))
    lines = table(build(some, [], {}, seed=0)).splitlines()
    assert lines[1].split() == ["fields", "-", "-", "-", "cannot", "tell", "0"]
    assert "[no interval]" in lines[2]
    assert lines[-3].split() == ["misspelling", "NOT", "RUN"]


def test_gain_prefers_fields_and_leaves_length_out() -> None:
    row = pair("q", "a: 1; b: 2")
    scorer = Scorer(["f1", "fields", "length_ratio"], frozenset(), VOCABULARY)
    item = scorer.item(row, Generation("x", (), "stop"), Generation("a: 1", (), "stop"), {})
    assert gain(item) == 0.5
    assert gain(items(1, lambda n: "alpha beta", names=("length_ratio",))[0]) == 0.0


@pytest.mark.parametrize(("with_fields", "found"), [(0, False), (1, True)])
def test_fields_join_the_metrics_from_a_tenth_of_the_references(with_fields: int, found: bool) -> None:
    references = ["a: 1"] * with_fields + ["text"] * 9
    assert ("fields" in metric_names(["f1"], references)) == found
    assert metric_names(["fields", "f1", "f1"], ["text"]) == ["fields", "f1"]


def test_every_metric_says_what_it_means() -> None:
    assert meaning("rouge2_recall").text == "the recall of rouge2"
    assert meaning("rouge2_recall").higher_is_better
    assert meaning("false_refusal").higher_is_better is False
    assert meaning("length_ratio").higher_is_better is None


def test_the_prompt_of_every_turn_counts_for_spelling() -> None:
    scorer = Scorer(["f1"], frozenset(), VOCABULARY)
    row = pair("what is a gizmotron", "alpha", system="We sell frobnicators.")
    good, bad = (Generation(text, (), "stop") for text in ("gizmotron frobnicators", "gizmotrn"))
    item = scorer.item(row, bad, good, {})
    assert item.errors["base"] == {"misspelling": "gizmotrn"}
    assert "misspelling" not in item.errors["tuned"]


def test_verdicts_are_by_p_adjusted_over_the_metrics() -> None:
    cells = {
        name: {"p": p, "verdict": said, "low": 0.01, "high": 0.2}
        for name, p, said in (("f1", 0.04, "better"), ("rougeL", 0.001, "better"), ("length_ratio", 0.01, None))
    }
    found = _as_family(cells)
    assert (found["f1"]["p_holm"], found["rougeL"]["p_holm"]) == (0.04, 0.002)
    cells = {name: {"p": 0.03, "verdict": "worse", "fixed": 0} for name in ("misspelling", "too_long")}
    assert {cell["verdict"] for cell in _as_family(cells).values()} == {"cannot tell"}
    assert "p_holm" not in found["length_ratio"]
