"""One decision from evidence: by hand, by property, and over a thousand simulated pairs of equal models."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import DataError, UsageError
from tunesmith.evaluate.gate import (
    EXIT,
    GateConfig,
    decide,
    forgetting_of,
    quality_of,
    replay,
    seal_evidence,
    suites_of,
)
from tunesmith.evaluate.gate_odds import Shape, draws, odds, table

EQUAL = {"prompt_ids_equal": True, "greedy_ids_equal": True}
HASHES = {"base": "b", "data": "d", "run": "r"}


def compared(low: float | None, high: float | None, p: float | None = 0.001, **more: Any) -> dict[str, Any]:
    middle = None if low is None or high is None else (low + high) / 2
    return {"n": 100, "base": 0.5, "tuned": 0.6, "difference": middle, "low": low, "high": high, "p": p, **more}


def evidence(low: float | None = 0.1, high: float | None = 0.2, p: float | None = 0.001, **more: Any) -> dict[str, Any]:
    quality = compared(low, high, p, metric="f1", higher_is_better=True)
    return {"hashes": HASHES, "parity": EQUAL, "suites": [], "quality": quality, "forgetting": [], **more}


def said(found: dict[str, Any], **config: Any) -> str:
    return str(decide(GateConfig(**config), found)["decision"])


def test_a_better_model_is_shipped_and_parts_that_did_not_run_are_told() -> None:
    found = decide(GateConfig(), evidence())
    assert (found["decision"], found["exit_code"], found["better"]) == ("ship", 0, True)
    assert found["reasons"] == [
        "parity: pass, what was saved speaks as what was trained",
        "f1: pass, better, +0.150 [+0.100, +0.200], n 100",
        "suites: NOT RUN, there is no suite of tests for this run: test",
        "forgetting: NOT RUN, no general benchmark was asked of base and tuned: benchmark",
    ]
    assert EXIT == {"ship": 0, "do not ship": 1, "cannot tell": 10}


@pytest.mark.parametrize(
    ("low", "high", "p", "decision"),
    [
        (0.1, 0.2, 0.001, "ship"),
        (-0.01, 0.05, 0.2, "ship"),  # not worse by more than 0.02
        (-0.015, -0.005, 0.001, "ship"),  # worse, and by no more than the margin
        (-0.05, 0.05, 0.9, "cannot tell"),
        (-0.05, -0.01, 0.2, "cannot tell"),  # the test does not bear the interval out
        (-0.05, -0.01, 0.001, "do not ship"),
        (None, None, None, "cannot tell"),
    ],
)
def test_tuned_must_not_be_worse_than_the_base_by_more_than_the_margin(
    low: float | None, high: float | None, p: float | None, decision: str
) -> None:
    assert said(evidence(low, high, p)) == decision


def test_with_the_goal_better_no_less_will_do() -> None:
    assert said(evidence(-0.01, 0.05, 0.2), goal="better") == "cannot tell"
    assert said(evidence(0.01, 0.05, 0.01), goal="better") == "ship"


def test_the_margins_of_quality_and_of_forgetting_are_their_own() -> None:
    assert said(evidence(-0.05, 0.05, 0.9), margin=0.06) == "ship"
    drop = [compared(-0.04, 0.01, 0.3, task="arc")]
    every: Any = ("parity", "quality", "forgetting")
    assert said(evidence(forgetting=drop), require=every) == "ship"
    assert said(evidence(forgetting=drop), require=every, forgetting=0.03) == "cannot tell"


def test_little_evidence_of_forgetting_is_no_worse_than_none_unless_it_is_required() -> None:
    few = evidence(forgetting=[compared(-0.2, 0.2, 0.9, task="arc")])
    assert said(few) == said(evidence()) == "ship"
    assert "arc: pass, not shown to be worse, +0.000 [-0.200, +0.200], n 100" in decide(GateConfig(), few)["reasons"]
    assert said(few, require=("forgetting",)) == "cannot tell"


def test_a_task_that_was_forgotten_blocks() -> None:
    lost = compared(-0.2, -0.1, 0.0001, task="hellaswag")
    found = decide(GateConfig(), evidence(forgetting=[lost]))
    assert found["decision"] == "do not ship"
    assert "hellaswag: fail, worse, -0.150 [-0.200, -0.100], n 100" in found["reasons"]


def test_of_many_tasks_one_that_dropped_by_chance_does_not_block() -> None:
    drop = compared(-0.12, -0.06, 0.03, task="one")
    others = [compared(-0.01, 0.01, 0.9, task=f"other {n}") for n in range(4)]
    assert said(evidence(0.1, 0.2, 0.0001, forgetting=[drop])) == "do not ship"
    assert said(evidence(0.1, 0.2, 0.0001, forgetting=[drop, *others])) == "ship"


@pytest.mark.parametrize(
    ("passed", "n", "required", "decision"),
    [
        (40, 40, 1.0, "ship"),
        (39, 40, 1.0, "do not ship"),  # one row shows that not all pass
        (38, 40, 0.95, "ship"),
        (37, 40, 0.95, "cannot tell"),
        (20, 40, 0.95, "do not ship"),
        (0, 0, 0.95, "cannot tell"),
    ],
)
def test_a_suite_blocks_where_its_rows_show_that_too_few_pass(
    passed: int, n: int, required: float, decision: str
) -> None:
    suite = {"name": "greets", "passed": passed, "n": n, "required": required}
    assert said(evidence(suites=[suite])) == decision


def test_what_cannot_be_told_comes_with_the_rows_that_could() -> None:
    found = decide(GateConfig(), evidence(-0.06, 0.06, 0.9))
    # 100 x ((1.96 + 0.84) x (0.06 / 1.96) / 0.02)^2
    assert found["rows_needed"] == pytest.approx(100 * (2.801585 * 0.06 / 1.959964 / 0.02) ** 2, abs=1)
    assert "about 1,839 rows could, should the difference stay" in found["reasons"][1]
    assert decide(GateConfig(), evidence(-0.12, 0.02, 0.1))["rows_needed"] is None  # no number of rows would
    suite = {"name": "s", "passed": 37, "n": 40, "required": 0.95}
    assert decide(GateConfig(), evidence(suites=[suite]))["rows_needed"] > 300


def test_a_metric_of_which_less_is_better_is_turned_round() -> None:
    assert said(evidence(quality=compared(-0.2, -0.1, metric="bpb", higher_is_better=False))) == "ship"
    assert said(evidence(quality=compared(0.1, 0.2, metric="bpb", higher_is_better=False))) == "do not ship"


def test_a_model_that_speaks_otherwise_once_it_is_saved_is_not_shipped() -> None:
    for key in EQUAL:
        assert said(evidence(parity=EQUAL | {key: False})) == "do not ship"


def test_nothing_is_shipped_without_the_evidence_that_is_required() -> None:
    assert said(evidence(parity=None)) == "cannot tell"
    assert said(evidence(quality=None)) == "cannot tell"
    assert said(evidence(), require=("parity", "quality", "forgetting")) == "cannot tell"
    assert said(evidence(quality=None), require=("parity",)) == "ship"


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.integers(0, 30), st.floats(0.5, 1))
def test_every_decision_is_one_of_three_and_its_legs_bear_it_out(
    low: float, width: float, p: float, passed: int, required: float
) -> None:
    suite = {"name": "s", "passed": passed, "n": 30, "required": required}
    found = decide(GateConfig(), evidence(low, min(1.0, low + width), p, suites=[suite]))
    states = {leg["state"] for leg in found["legs"]}
    assert found["decision"] in EXIT
    assert (found["decision"] == "do not ship") == ("fail" in states)
    assert found["decision"] != "ship" or states <= {"pass", "NOT RUN"}


def test_the_metric_is_the_one_that_is_named_or_the_first_that_ranks() -> None:
    cell = {"n": 9, "clusters": 9, "base": 0.1, "tuned": 0.2, "difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.05}
    cells = {"f1": {**cell, "verdict": "cannot tell"}, "length_ratio": {**cell, "verdict": None}}
    cells |= {"exact_match": {**cell, "n": 8, "verdict": "cannot tell"}, "fields": {"n": 0, "verdict": None}}
    ranking = ("fields", "f1", "exact_match")
    assert quality_of({"metrics": cells}, None, ranking) == {"metric": "f1", **cell}
    assert quality_of({"metrics": cells}, "exact_match", ranking)["n"] == 8
    for name in ("length_ratio", "f2"):
        with pytest.raises(UsageError, match=f"no metric '{name}' that ranks"):
            quality_of({"metrics": cells}, name, ranking)


# The file


def test_the_file_replays_to_the_same_decision_after_a_journey_through_json() -> None:
    file = json.loads(json.dumps(seal_evidence(GateConfig(margin=0.03), evidence())))
    assert replay(file, HASHES)["decision"] == file["decision"] == "ship"
    assert replay(file, None)["reasons"] == file["reasons"]


def test_a_file_that_was_changed_is_refused() -> None:
    file = seal_evidence(GateConfig(), evidence(-0.05, -0.01))
    for changed in (
        {**file, "decision": "ship"},
        {**file, "config": {**file["config"], "margin": 0.5}},
        {**file, "evidence": evidence()},
    ):
        with pytest.raises(DataError, match="was changed after it was sealed"):
            replay(changed, HASHES)
    with pytest.raises(DataError, match="not an evidence file"):
        replay({"decision": "ship"}, HASHES)


@pytest.mark.parametrize("name", HASHES)
def test_evidence_of_another_base_data_or_run_is_refused(name: str) -> None:
    file = seal_evidence(GateConfig(), evidence())
    with pytest.raises(DataError, match=f"the {name} is another one"):
        replay(file, HASHES | {name: "other"})


def test_the_reports_of_other_verbs_become_plain_evidence() -> None:
    tests = [{"test": "a", "assertion": "contains", "required": 0.9, "passed": 9, "n": 9, "unchecked": 1, "ok": False}]
    suite = {"name": "a: contains", "required": 0.9, "passed": 9, "n": 9, "unchecked": 1}
    assert suites_of({"tests": tests}) == [suite]
    assert said(evidence(suites=[suite])) == "cannot tell"  # a check that did not run is no pass
    task = {"task": "arc", "n": 7, "base": 0.5, "value": 0.4, "difference": -0.1, "p": 0.2, "verdict": "cannot tell"}
    task |= {"low": 0.2, "high": 0.6, "difference_low": -0.3, "difference_high": 0.1}
    (found,) = forgetting_of({"tasks": [task, {"task": "alone", "n": 7, "value": 0.4}]})
    assert found == {"task": "arc", "n": 7, "base": 0.5, "tuned": 0.4, "difference": -0.1, "p": 0.2} | {
        "low": -0.3,
        "high": 0.1,
    }


# How often it is wrong

RIVAL = Shape(rows=100, tasks=(40, 40, 24, 40, 40, 40, 40, 40))  # a rival's default suites, with its 100-row task


def blocks_on_points(found: dict[str, Any]) -> bool:
    """A rival's rule: tuned must come out above the base, and no suite may drop by more than 0.05, each by itself."""
    won = found["quality"]["difference"] > 0
    return not won or any(task["difference"] < -0.05 for task in found["forgetting"])


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.2])
def test_two_copies_of_one_model_with_noisy_answers_alarm_in_at_most_one_case_of_twenty(noise: float) -> None:
    shape = Shape(RIVAL.rows, RIVAL.tasks, ((40, 0.95, 0.95), (60, 0.9, 0.9)), noise)
    made = [decide(GateConfig(), one) for one in draws(shape, 0.0, 1000, np.random.default_rng(1))]
    blocked = sum(one["decision"] == "do not ship" for one in made)
    praised = sum(one["better"] for one in made)
    assert blocked + praised <= 50


def test_a_gate_of_point_thresholds_blocks_more_than_half_of_the_same_models() -> None:
    drawn = draws(RIVAL, 0.0, 1000, np.random.default_rng(1))
    assert sum(blocks_on_points(one) for one in drawn) > 500
    assert sum(decide(GateConfig(), one)["decision"] == "do not ship" for one in drawn) <= 50


def test_a_model_that_is_much_worse_is_hardly_ever_shipped_and_one_that_is_much_better_is() -> None:
    found = {one["difference"]: one for one in odds(GateConfig(), Shape(200, (), (), 0.1), runs=200)}
    assert found[-0.1]["ship"] == found[-0.2]["ship"] == 0.0
    assert found[-0.2]["do not ship"] > 0.95
    assert found[0.2]["ship"] > 0.95
    assert found[0.2]["better"] > 0.95
    assert found[0.0]["wrong"] <= 0.08  # of 200: 5 % expected at most
    assert found[-0.1]["wrong"] == found[0.1]["wrong"] == 0.0
    assert all(one["ship"] + one["do not ship"] + one["cannot tell"] == pytest.approx(1) for one in found.values())


def test_more_rows_tell_more() -> None:
    few, many = (odds(GateConfig(), Shape(rows, (), (), 0.1), runs=200)[0] for rows in (50, 3000))
    assert few["cannot tell"] > many["cannot tell"]
    assert many["ship"] > 0.8  # equal models, shown to be not worse by more than 0.02


def test_the_shape_of_a_simulation_is_that_of_the_evidence() -> None:
    suite = {"name": "s", "passed": 37, "n": 40, "required": 0.95}
    found = evidence(-0.06, 0.06, 0.9, suites=[suite], forgetting=[compared(-0.1, 0.1, task="arc")])
    shape = Shape.of(found)
    assert (shape.rows, shape.tasks, shape.suites) == (100, (100,), ((40, 0.95, 0.95),))
    assert shape.noise == pytest.approx(100 * (0.06 / 1.959964) ** 2)
    found["quality"]["clusters"] = 50
    assert Shape.of(found).rows == 50
    assert Shape.of(evidence(quality=None)).noise == 0.1


def test_the_table_of_the_simulation_has_a_line_for_each_truth() -> None:
    head, *lines = table(odds(GateConfig(), Shape(30, (), ()), runs=10)).splitlines()
    assert head.split("  ")[-2:] == ["called better", "wrong"]
    assert [line.split()[0] for line in lines] == ["+0.00", "-0.05", "-0.10", "-0.20", "+0.05", "+0.10", "+0.20"]
