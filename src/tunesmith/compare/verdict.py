"""Which arm to take, and why: every pair of arms on the same rows, and never more than the intervals allow.

All pairs are tested, and not only those of the arm that came out best: choosing it on these rows and testing it as if
it had been named before would find a winner among equals. Holm's correction pays for the number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from tunesmith.metrics.power import Pilot
from tunesmith.metrics.stats import holm, paired, verdict

Arms = Sequence[Mapping[str, Any]]  # as they stand in report.json


def pairs(
    values: Mapping[str, Sequence[float]], groups: Sequence[str], higher: bool, seed: int = 0
) -> list[dict[str, Any]]:
    """For every pair of arms the difference b - a with its 95 % interval, Holm's p, and the verdict on b.

    `rows_needed`: rows like these that would show a difference of the size that was seen, where these do not.
    """
    both = list(combinations(values, 2))
    found = {f"{a}\n{b}": paired(values[a], values[b], groups, seed) for a, b in both}
    adjusted = holm({key: result.p for key, result in found.items()})
    out = []
    for (a, b), (key, result) in zip(both, found.items(), strict=True):
        said = verdict(result, higher, adjusted[key])
        pilot = Pilot.of(values[a], values[b], groups)
        needed = pilot.rows_needed(pilot.difference) if said == "cannot tell" else None
        facts = {name: getattr(result, name) for name in ("n", "difference", "low", "high", "p", "test")}
        out.append({"a": a, "b": b, **facts, "p_holm": adjusted[key], "verdict": said, "rows_needed": needed})
    return out


def leading(names: Iterable[str], tested: Sequence[Mapping[str, Any]]) -> list[str]:
    """The arms that no other is shown to be better than."""
    return [name for name in names if not any(_better(other, name, tested) for other in _others(name, tested))]


def conclude(arms: Arms, tested: Sequence[Mapping[str, Any]], metric: str, price: str) -> tuple[str, list[str]]:
    """(the verdict, its reasons). `price` says what local costs are reckoned with."""
    names = [arm["name"] for arm in arms]
    best = leading(names, tested)
    leaders = [arm for arm in arms if arm["name"] in best]
    top = max(leaders, key=lambda arm: arm["metrics"][metric]["value"])["name"]
    reasons = [_quality(pair, top, metric, len(tested)) for pair in tested if top in (pair["a"], pair["b"])]
    return _sentence(best, names, tested, metric), [*reasons, *_tradeoffs(leaders, arms, price), *_losses(arms)]


def _sentence(best: list[str], names: list[str], tested: Sequence[Mapping[str, Any]], metric: str) -> str:
    if len(best) > 1:
        return f"cannot tell which is best on {metric}: {', '.join(best)}"
    if all(_better(best[0], name, tested) for name in names if name != best[0]):
        return f"{best[0]} is better than every other arm on {metric}"
    return f"no arm is shown to be better than {best[0]} on {metric}, nor it better than all"


def _others(name: str, tested: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    return (pair["b"] if pair["a"] == name else pair["a"] for pair in tested if name in (pair["a"], pair["b"]))


def _better(one: str, other: str, tested: Sequence[Mapping[str, Any]]) -> bool:
    """Whether `one` is shown to be better than `other`."""
    return any((p["a"], p["b"], p["verdict"]) in ((other, one, "better"), (one, other, "worse")) for p in tested)


def _quality(pair: Mapping[str, Any], top: str, metric: str, count: int) -> str:
    """The pair as seen from the leading arm."""
    turned = pair["a"] == top
    other, sign = (pair["b"], -1) if turned else (pair["a"], 1)
    said = {"better": "worse", "worse": "better"}.get(pair["verdict"], pair["verdict"]) if turned else pair["verdict"]
    low, high = sorted(sign * pair[end] for end in ("low", "high")) if pair["low"] is not None else (None, None)
    between = "no interval" if low is None else f"[{low:+.3f}, {high:+.3f}]"
    p = "" if pair["p_holm"] is None else f", p {pair['p_holm']:.4f} by Holm over {count}"
    more = f"; about {pair['rows_needed']:,} rows could tell" if pair["rows_needed"] else ""
    return f"{top} against {other}: {said}, {sign * pair['difference']:+.3f} {between} {metric}, n {pair['n']}{p}{more}"


def _tradeoffs(leaders: Arms, arms: Arms, price: str) -> Iterator[str]:
    """What the leading arms cost, how long they take, and whom they tell: facts to choose by, of no weight here."""
    priced = sorted((arm for arm in leaders if arm["cost_per_1000"] is not None), key=lambda a: a["cost_per_1000"])
    if priced:
        told = ", ".join(f"{arm['name']} {arm['cost_per_1000']:.4g}" for arm in priced)
        yield f"cost of 1,000 requests: {told} ({price})"
    timed = [(arm["name"], arm["latency_ms"]) for arm in leaders if arm["latency_ms"]["p50"] is not None]
    if timed:
        fastest = sorted(timed, key=lambda one: one[1]["p50"])
        told = ", ".join(f"{name} {ms['p50']:.0f} ms (p95 {ms['p95']:.0f})" for name, ms in fastest)
        yield f"half of the requests are answered within: {told}"
    away = [arm["name"] for arm in arms if arm["leaves_machine"]]
    yield f"your data leaves this machine with: {', '.join(away)}" if away else "no arm sends data off this machine"


def _losses(arms: Arms) -> Iterator[str]:
    """What an arm could not be given or did not answer: it weighs on its score."""
    for arm in arms:
        if arm["prompts_cut"]:
            what = f"{arm['prompts_cut']} of {arm['n']} prompts did not fit into the context"
            yield f"{arm['name']}: {what}, and lost {arm['dropped']} examples or passages"
        if arm["unanswered"]:
            yield f"{arm['name']}: {arm['unanswered']} of {arm['n']} requests got no answer, and count as empty ones"
