from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.compare.verdict import conclude, leading, pairs


def groups(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def cell(name: str, value: float, **changes: Any) -> dict[str, Any]:
    figures = {"name": name, "n": 40, "metrics": {"f1": {"value": value}}, "latency_ms": {"p50": 5.0, "p95": 9.0}}
    figures |= {"cost_per_1000": 0.5, "leaves_machine": False, "prompts_cut": 0, "dropped": 0, "unanswered": 0}
    return figures | changes


def said(a: str, b: str, verdict: str) -> dict[str, Any]:
    numbers: dict[str, Any] = {"n": 40, "difference": 0.5, "low": 0.4, "high": 0.6, "p": 0.001, "p_holm": 0.003}
    numbers["rows_needed"] = 900 if verdict == "cannot tell" else None
    return {"a": a, "b": b, "verdict": verdict, **numbers}


def test_every_pair_is_tested_once_and_its_verdict_is_on_the_second_arm() -> None:
    values = {"a": [0.0] * 20, "b": [1.0] * 20, "c": [0.0] * 20}
    ab, ac, bc = pairs(values, groups(20), higher=True)
    assert (ab["a"], ab["b"], ab["difference"], ab["verdict"]) == ("a", "b", 1.0, "better")
    assert (ac["verdict"], ac["difference"], ac["n"]) == ("cannot tell", 0.0, 20)
    assert (bc["verdict"], bc["difference"], bc["rows_needed"]) == ("worse", -1.0, None)
    assert (ab["test"], ac["rows_needed"]) == ("exact McNemar", None)  # no difference was seen: no size to look for
    assert pairs(values, groups(20), higher=False)[0]["verdict"] == "worse"


def test_what_cannot_be_told_comes_with_the_rows_that_could_tell() -> None:
    a, b = [0.0, 1.0] * 10, [0.0, 1.0] * 9 + [1.0, 1.0]
    (pair,) = pairs({"a": a, "b": b}, groups(20), higher=True)
    assert (pair["verdict"], pair["difference"]) == ("cannot tell", 0.05)
    assert pair["rows_needed"] > 100


def test_one_group_allows_no_verdict() -> None:
    (pair,) = pairs({"a": [0.0] * 9, "b": [1.0] * 9}, ["one"] * 9, higher=True)
    assert (pair["verdict"], pair["p_holm"], pair["low"]) == ("cannot tell", None, None)


def test_arms_of_equal_quality_are_told_apart_in_at_most_one_comparison_of_twenty() -> None:
    """Four equal arms, six pairs each; without a correction a fifth of the comparisons would find a winner."""
    random = np.random.default_rng(0)

    def told() -> bool:
        answers: Sequence[float] = random.random((4, 20)).tolist()
        tested = pairs(dict(zip("abcd", answers, strict=True)), groups(20), higher=True)
        return any(pair["verdict"] != "cannot tell" for pair in tested)

    assert sum(told() for _ in range(200)) <= 17  # 10 expected at most; more than 17 have a chance of 1 %


def test_an_arm_leads_when_no_other_is_shown_to_be_better() -> None:
    tested = [said("a", "b", "better"), said("a", "c", "cannot tell"), said("b", "c", "worse")]
    assert leading("abc", tested) == ["b"]
    assert leading("abc", [said("a", "b", "cannot tell"), said("b", "c", "worse")]) == ["a", "b"]
    assert leading("a", []) == ["a"]


def test_a_winner_is_named_with_its_difference_to_each_other_arm() -> None:
    arms = [cell("few-shot", 0.2), cell("tuned", 0.7), cell("retrieval", 0.2)]
    tested = [said("few-shot", "tuned", "better"), said("tuned", "retrieval", "worse")]
    verdict, reasons = conclude(arms, tested, "f1", "an hour at 0.1")
    assert verdict == "tuned is better than every other arm on f1"
    assert reasons[0] == "tuned against few-shot: better, +0.500 [+0.400, +0.600] f1, n 40, p 0.0030 by Holm over 2"
    assert reasons[1].startswith("tuned against retrieval: better, -0.500 [-0.600, -0.400] f1")
    assert "cost of 1,000 requests: tuned 0.5 (an hour at 0.1)" in reasons
    assert "no arm sends data off this machine" in reasons


def test_among_equals_no_winner_is_named_and_cost_time_and_privacy_are_told() -> None:
    arms = [
        cell("tuned", 0.7, cost_per_1000=0.2, latency_ms={"p50": 50.0, "p95": 90.0}),
        cell("big zero-shot", 0.71, leaves_machine=True, cost_per_1000=9.0, unanswered=3),
        cell("few-shot", 0.1, prompts_cut=7, dropped=11, cost_per_1000=None),
    ]
    tested = [said("tuned", "big zero-shot", "cannot tell"), said("tuned", "few-shot", "worse")]
    tested += [said("big zero-shot", "few-shot", "worse")]
    verdict, reasons = conclude(arms, tested, "f1", "assumed")
    assert reasons[0].endswith(
        "cannot tell, +0.500 [+0.400, +0.600] f1, n 40, p 0.0030 by Holm over 3; about 900 rows could tell"
    )
    assert verdict == "cannot tell which is best on f1: tuned, big zero-shot"
    assert reasons[2:5] == [
        "cost of 1,000 requests: tuned 0.2, big zero-shot 9 (assumed)",
        "half of the requests are answered within: big zero-shot 5 ms (p95 9), tuned 50 ms (p95 90)",
        "your data leaves this machine with: big zero-shot",
    ]
    assert "big zero-shot: 3 of 40 requests got no answer, and count as empty ones" in reasons
    assert "few-shot: 7 of 40 prompts did not fit into the context, and lost 11 examples or passages" in reasons


def test_an_arm_that_leads_without_beating_all_is_called_no_winner() -> None:
    arms = [cell("a", 0.5), cell("b", 0.6), cell("c", 0.4)]
    tested = [said("a", "b", "better"), said("a", "c", "worse"), said("b", "c", "cannot tell")]
    assert conclude(arms, tested, "f1", "")[0] == "no arm is shown to be better than b on f1, nor it better than all"
