"""One decision on a tuned model from the evidence there is: ship, do not ship, or cannot tell, and what could tell.

Every part of the evidence that could block or praise a model by chance is one test of one family, corrected by Holm:
two copies of one model are called different in at most one of twenty cases, however many suites and tasks there are.
A gate that blocks on each drop of a few points, each looked at by itself, stops an equal model more often than not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from tunesmith.core.config import Config, make
from tunesmith.core.errors import DataError, UsageError, did_you_mean
from tunesmith.metrics.stats import holm

LEVEL = 0.05
Z, Z_POWER = 1.959964, 0.841621  # of a two-sided test at 0.05, and of a power of 0.8
EXIT = {"ship": 0, "do not ship": 1, "cannot tell": 10}
Part = Literal["parity", "quality", "suites", "forgetting"]


class GateConfig(Config):
    """What a tuned model must show before it is shipped."""

    goal: Literal["not worse", "better"] = "not worse"
    """what tuned must be against base on held-out rows: "not worse" (by more than the margin), or "better"
    """
    margin: float = Field(default=0.02, gt=0, lt=1)
    """how much worse on the metric still counts as "not worse", in points of a score of 0 to 1"""
    forgetting: float = Field(default=0.05, gt=0, lt=1)
    """how much worse a general benchmark may become; where forgetting is required, that must be shown"""
    metric: str | None = None
    """the metric of the evaluation that decides; None for the one that the report ranks by"""
    require: tuple[Part, ...] = ("parity", "quality")
    """evidence without which nothing is shipped; other parts only stop what they show to be bad"""


class Leg(NamedTuple):
    """One part of the decision. `state`: pass, fail, cannot tell or NOT RUN. `rows`: those that could tell."""

    part: Part
    name: str
    state: str
    why: str
    rows: int | None = None


def decide(config: GateConfig, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The decision with its reasons. `evidence` is plain data:

    parity {prompt_ids_equal, greedy_ids_equal} or None; suites [{name, required, passed, n, unchecked}];
    quality {metric, n, base, tuned, difference, low, high, p, higher_is_better} or None;
    forgetting [{task, n, base, tuned, difference, low, high, p}], all of them tuned against base.
    """
    adjusted = holm(_family(evidence))
    legs = [*_parity(evidence), *_quality(config, evidence, adjusted)]
    legs += [*_suites(evidence, adjusted), *_forgetting(config, evidence, adjusted)]
    blocked = any(leg.state == "fail" for leg in legs)
    missing = [leg for leg in legs if leg.state == "NOT RUN" and leg.part in config.require]
    unsure = missing or any(leg.state == "cannot tell" for leg in legs)
    said = "do not ship" if blocked else "cannot tell" if unsure else "ship"
    rows = [leg.rows for leg in legs if leg.state == "cannot tell" and leg.rows]
    return {
        "decision": said,
        "exit_code": EXIT[said],
        "better": _better(evidence, adjusted),
        "reasons": [f"{leg.name}: {leg.state}, {leg.why}" for leg in legs],
        "legs": [leg._asdict() for leg in legs],
        "rows_needed": max(rows, default=None),
    }


def _family(evidence: Mapping[str, Any]) -> dict[str, float | None]:
    """The p value of every test that could block or praise by chance."""
    found: dict[str, float | None] = {f"suite {place}": _below(one) for place, one in enumerate(evidence["suites"])}
    found |= {f"task {place}": one["p"] for place, one in enumerate(evidence["forgetting"])}
    return found | ({"quality": evidence["quality"]["p"]} if evidence["quality"] else {})


def _below(suite: Mapping[str, Any]) -> float:
    """The chance of so few rows that pass, where the required share of all rows would: exact binomial."""
    from scipy.stats import binom

    return float(binom.cdf(suite["passed"], suite["n"], suite["required"])) if suite["n"] else 1.0


def _parity(evidence: Mapping[str, Any]) -> Iterator[Leg]:
    found = evidence["parity"]
    if not found:
        yield Leg("parity", "parity", "NOT RUN", "the run has no parity receipt")
    elif found["prompt_ids_equal"] and found["greedy_ids_equal"]:
        yield Leg("parity", "parity", "pass", "what was saved speaks as what was trained")
    else:
        yield Leg("parity", "parity", "fail", "what was saved does not speak as what was trained")


def _quality(config: GateConfig, evidence: Mapping[str, Any], adjusted: Mapping[str, float | None]) -> Iterator[Leg]:
    found = evidence["quality"]
    if not found:
        yield Leg("quality", "quality", "NOT RUN", "tuned and base were not compared on held-out rows: evaluate")
        return
    yield _compared("quality", found["metric"], _oriented(found), adjusted["quality"], config.margin, config.goal)


def _forgetting(config: GateConfig, evidence: Mapping[str, Any], adjusted: Mapping[str, float | None]) -> Iterator[Leg]:
    if not evidence["forgetting"]:
        yield Leg("forgetting", "forgetting", "NOT RUN", "no general benchmark was asked of base and tuned: benchmark")
    needed = "forgetting" in config.require  # else little evidence would be worse than none
    for place, one in enumerate(evidence["forgetting"]):
        p = adjusted[f"task {place}"]
        yield _compared(
            "forgetting", one["task"], one, p, config.forgetting, "not worse" if needed else "not shown worse"
        )


def _suites(evidence: Mapping[str, Any], adjusted: Mapping[str, float | None]) -> Iterator[Leg]:
    """A suite fails where its rows show that too few would pass, and not where a few too many did."""
    if not evidence["suites"]:
        yield Leg("suites", "suites", "NOT RUN", "there is no suite of tests for this run: test")
    for place, one in enumerate(evidence["suites"]):
        p, told = adjusted[f"suite {place}"], f"{one['passed']} of {one['n']} rows pass, {one['required']:g} is asked"
        unchecked = one.get("unchecked", 0)
        if p is not None and p < LEVEL:
            yield Leg("suites", one["name"], "fail", told)
        elif unchecked or not one["n"]:
            yield Leg("suites", one["name"], "cannot tell", f"{told}, {unchecked} could not be checked")
        elif one["passed"] >= one["required"] * one["n"] - 1e-9:
            yield Leg("suites", one["name"], "pass", told)
        else:
            yield Leg("suites", one["name"], "cannot tell", f"{told}, which may be chance", _rows_of_suite(one))


def _compared(part: Part, name: str, found: Mapping[str, Any], p: float | None, margin: float, goal: str) -> Leg:
    """Tuned against base: worse, as good as the goal asks, or neither shown."""
    low, high = found["low"], found["high"]
    if low is None or p is None:
        return Leg(part, name, "cannot tell", "too few rows, or groups of rows, for an interval")
    told = f"{found['difference']:+.3f} [{low:+.3f}, {high:+.3f}], n {found['n']}"
    if p < LEVEL and high < 0 and low <= -margin:
        return Leg(part, name, "fail", f"worse, {told}")
    wanted = "better" if goal == "better" else f"not worse by more than {margin:g}"
    if p < LEVEL and low > 0:
        return Leg(part, name, "pass", f"better, {told}")
    if low > -margin and goal != "better":
        return Leg(part, name, "pass", f"{wanted}, {told}")
    if goal == "not shown worse":
        return Leg(part, name, "pass", f"not shown to be worse, {told}")
    rows = _rows(found, 0.0 if goal == "better" else margin)
    more = f"; about {rows:,} rows could, should the difference stay" if rows else ""
    return Leg(part, name, "cannot tell", f"not shown to be {wanted}, {told}{more}", rows)


def _oriented(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """With more as better, whatever the metric."""
    if found["higher_is_better"] or found["low"] is None:
        return found
    return {**found, "difference": -found["difference"], "low": -found["high"], "high": -found["low"]}


def _better(evidence: Mapping[str, Any], adjusted: Mapping[str, float | None]) -> bool:
    """Whether the tuned model is shown to be better on the metric."""
    found, p = evidence["quality"], adjusted.get("quality")
    return bool(found and p is not None and p < LEVEL and (low := _oriented(found)["low"]) is not None and low > 0)


def _rows(found: Mapping[str, Any], margin: float) -> int | None:
    """Rows that would show it with a power of 0.8, if the difference stays; None where none would."""
    room = found["difference"] + margin
    error = (found["high"] - found["low"]) / (2 * Z)
    return math.ceil(found["n"] * ((Z + Z_POWER) * error / room) ** 2) if room > 0 else None


def _rows_of_suite(one: Mapping[str, Any]) -> int:
    """Rows of which this share would show, with a power of 0.8, that less than the required share pass."""
    wanted, seen = float(one["required"]), one["passed"] / one["n"]
    spread = Z * math.sqrt(wanted * (1 - wanted)) + Z_POWER * math.sqrt(seen * (1 - seen))
    rows: int = math.ceil((spread / (wanted - seen)) ** 2)
    return rows


def seal_evidence(config: GateConfig, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The evidence file: what was decided, from what, and a digest of both."""
    facts = {"config": config.model_dump(mode="json"), "evidence": evidence, **decide(config, evidence)}
    return {**facts, "digest": _digest(facts)}


def replay(file: Mapping[str, Any], hashes: Mapping[str, str] | None) -> dict[str, Any]:
    """The decision again, from the file alone. `hashes`: those of base, data and run as they are now, where known.

    Raises DataError where the file was changed, or speaks of another base, data or run.
    """
    fix = "tunesmith gate, which gathers the evidence anew"
    try:
        facts = {key: value for key, value in file.items() if key != "digest"}
        config, evidence = make(GateConfig, facts["config"]), facts["evidence"]
        bound, digest = evidence["hashes"], file["digest"]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError("not an evidence file of the gate", fix=fix) from error
    if digest != _digest(facts):
        raise DataError("the evidence was changed after it was sealed", fix=fix)
    for name, now in (hashes or {}).items():
        if bound.get(name) != now:
            raise DataError(f"the {name} is another one than the evidence speaks of", fix=fix)
    again = decide(config, evidence)
    if again != {key: facts[key] for key in again}:
        raise DataError("this version decides otherwise on the same evidence", fix=fix)
    return again


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def suites_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The assertions of a test's report."""
    keys = ("required", "passed", "n", "unchecked")
    return [{"name": f"{one['test']}: {one['assertion']}"} | {key: one[key] for key in keys} for one in report["tests"]]


def forgetting_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tasks of a benchmark that were asked of base and tuned; p is as the benchmark adjusted it: the safer one."""
    keys = {"low": "difference_low", "high": "difference_high", "tuned": "value"}
    same = ("task", "n", "base", "difference", "p")
    tasks: Sequence[Mapping[str, Any]] = [one for one in report["tasks"] if one.get("verdict")]
    return [{key: one[key] for key in same} | {key: one[its] for key, its in keys.items()} for one in tasks]


def quality_of(report: Mapping[str, Any], name: str | None, ranking: Sequence[str]) -> dict[str, Any]:
    """The comparison of an evaluation's report on one metric: that of the name, else the first of `ranking` there is.

    Raises UsageError where there is none, or it has no better side.
    """
    usable = {key: cell for key, cell in report["metrics"].items() if cell["n"] and cell["verdict"]}
    chosen = name or next((key for key in ranking if key in usable), None)
    if chosen not in usable:
        what = f"the evaluation has no metric {chosen!r} that ranks answers"
        raise UsageError(what, where="[gate] metric", fix=did_you_mean(str(chosen), usable))
    keys = ("n", "clusters", "base", "tuned", "difference", "low", "high", "p")
    return {"metric": chosen, **{key: usable[chosen][key] for key in keys}}
