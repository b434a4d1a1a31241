"""What a judge's opinions amount to, and what they say of the judge: it is printed beside every score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from tunesmith.evaluate.opinions import Case, Opinion
from tunesmith.metrics.preference import length_controlled, with_votes
from tunesmith.metrics.rating import cohen_kappa
from tunesmith.metrics.stats import mean_interval, paired

VOTES = {"a": 0.0, "b": 1.0, "tie": 0.5, "both_bad": 0.5}  # what a vote says of b
UNREAD = 0.05  # of the replies, beyond which a judge is not to be relied on
STEADY = 0.75  # of the pairs that should get one verdict both ways round
Winner = Literal["a", "b", "tie"]


@dataclass(frozen=True)
class Finding:
    """One item. `preference` of b in 0..1 over what could be read, 0.5 where nothing could; `winner`: the verdict that
    all readable replies agree on, else a tie; `agreed`: whether they agreed, where there are two."""

    case: Case
    preference: float
    winner: Winner
    agreed: bool | None
    slots: tuple[float, ...]
    unread: tuple[str, ...]
    marks: tuple[float | None, float | None] = (None, None)

    @property
    def seen(self) -> bool:
        return bool(self.slots) or None not in self.marks

    def to_json(self) -> dict[str, Any]:
        facts = {"id": self.case.id, "winner": self.winner, "preference": self.preference, "agreed": self.agreed}
        return {**facts, "marks": list(self.marks), "longer_by": self.case.longer_by(), "unread": list(self.unread)}


def finding(case: Case, opinions: Sequence[Opinion], mode: str) -> Finding:
    unread = tuple(opinion.why for opinion in opinions if opinion.value is None)
    if mode == "rubric":
        a, b = (opinion.value for opinion in opinions)
        preference = 0.5 if a is None or b is None else 0.5 + (b > a) / 2 - (b < a) / 2
        return Finding(case, preference, _winner(preference), None, (), unread, (a, b))
    told = [(opinion, opinion.value) for opinion in opinions if opinion.value is not None]
    preference = fmean(value if opinion.first == "b" else 1 - value for opinion, value in told) if told else 0.5
    hard = [{"A": 1.0, "B": 0.0, "C": 0.5}[opinion.said] for opinion, _ in told]
    sides = {(value if opinion.first == "b" else 1 - value) for value, (opinion, _) in zip(hard, told, strict=True)}
    agreed = len(sides) == 1 if len(told) == 2 else None
    return Finding(case, preference, _winner(sides.pop()) if len(sides) == 1 else "tie", agreed, tuple(hard), unread)


def _winner(preference: float) -> Winner:
    return "b" if preference > 0.5 else "a" if preference < 0.5 else "tie"


def build(found: Sequence[Finding], votes: Sequence[Mapping[str, Any]], mode: str) -> dict[str, Any]:
    """The figures: b's win rate as it is and at equal lengths, and what is known of the judge."""
    groups = [one.case.group for one in found]
    replies = sum(len(one.slots) + len(one.unread) for one in found) if mode == "pairwise" else 2 * len(found)
    facts: dict[str, Any] = {"n": len(found), "win_rate": _mean([one.preference for one in found], groups)}
    longer_by = [one.case.longer_by() for one in found]
    facts["length_controlled"] = asdict(length_controlled([one.preference for one in found], longer_by, groups))
    facts["winners"] = {winner: sum(one.winner == winner for one in found) for winner in ("a", "b", "tie")}
    facts["alike"] = sum(one.case.alike() for one in found)
    facts |= {"replies": replies, "unread": dict(Counter(why for one in found for why in one.unread))}
    facts["consistency"] = _share([(one.agreed, one.case.group) for one in found if one.agreed is not None])
    facts["first_slot"] = _share([(value, one.case.group or one.case.id) for one in found for value in one.slots])
    facts["longer"] = _longer(found)
    if mode == "rubric":
        facts["marks"] = _marks(found)
    facts["votes"] = _people(found, votes)
    return {**facts, "warnings": warnings(facts), "verdict": verdict(facts)}


def _mean(values: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
    mean = mean_interval(values, groups)
    return {"n": mean.n, "value": mean.mean, "low": mean.low, "high": mean.high}


def _share(values: Sequence[tuple[float | bool, str]]) -> dict[str, Any]:
    """The mean of (value, group)."""
    return _mean([float(value) for value, _ in values], [group for _, group in values])


def _longer(found: Sequence[Finding]) -> dict[str, Any]:
    """Of the items with a winner and answers of different length: how often the longer one won."""
    decided = [(one, one.case.longer_by()) for one in found if one.winner != "tie" and one.case.longer_by()]
    return _share([((by > 0) == (one.winner == "b"), one.case.group) for one, by in decided])


def _marks(found: Sequence[Finding]) -> dict[str, Any]:
    """The mean marks, 1 to 5, of the items of which both answers got one."""
    both = [(*one.marks, one.case.group) for one in found]
    marked = [((a - 1) / 4, (b - 1) / 4, group) for a, b, group in both if a is not None and b is not None]
    scaled = paired([a for a, *_ in marked], [b for _, b, _ in marked], [group for *_, group in marked])
    out: dict[str, Any] = {"n": len(marked), "p": scaled.p}
    for name, value in (("a", scaled.base), ("b", scaled.tuned)):
        out[name] = None if value is None else 1 + 4 * value
    for name in ("difference", "low", "high"):
        value = getattr(scaled, name)
        out[name] = None if value is None else 4 * value
    return out


def _people(found: Sequence[Finding], votes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the judge agrees with people, and their preference with the judge as a help, over the items whose answers
    differ: people are not asked about others."""
    judged = {one.case.id: one.preference for one in found if not one.case.alike()}
    by_item: dict[str, list[float]] = {}
    for vote in votes:
        by_item.setdefault(vote["item"], []).append(VOTES[vote["winner"]])
    winners = {one.case.id: one.winner for one in found if one.seen}
    pairs = [(_winner(VOTES[vote["winner"]]), winners[vote["item"]]) for vote in votes if vote["item"] in winners]
    helped = with_votes({item: fmean(values) for item, values in by_item.items() if item in judged}, judged)
    return {
        "n": len(votes),
        "items": len(by_item),
        "both_bad": sum(vote["winner"] == "both_bad" for vote in votes),
        "agreement": fmean(one == other for one, other in pairs) if pairs else None,
        "kappa": cohen_kappa([one for one, _ in pairs], [other for _, other in pairs]),
        "people": asdict(helped.people),
        "with_judge": asdict(helped.helped),
        "weight": helped.weight,
        "worth": helped.worth,
    }


def verdict(facts: Mapping[str, Any]) -> str:
    """Of b. Both the win rate as it is and that at equal lengths must leave out one half, on the same side, and enough
    of the replies must have been read."""
    if sum(facts["unread"].values()) > facts["replies"] / 2:
        return "cannot tell"
    sides = {_side(facts["win_rate"]), _side(facts["length_controlled"])}
    return sides.pop() if len(sides) == 1 else "cannot tell"


def _side(cell: Mapping[str, Any]) -> str:
    if cell["low"] is None or cell["low"] <= 0.5 <= cell["high"]:
        return "cannot tell"
    return "better" if cell["low"] > 0.5 else "worse"


def _unreadable(facts: Mapping[str, Any]) -> str:
    unread = sum(facts["unread"].values())
    reasons = ", ".join(f"{count} {why}" for why, count in facts["unread"].items())
    return (
        f"{unread} of {facts['replies']} replies gave no verdict ({reasons})"
        if unread > UNREAD * facts["replies"]
        else ""
    )


def _unsteady(facts: Mapping[str, Any]) -> str:
    value = facts["consistency"]["value"]
    return "" if value is None or value >= STEADY else f"only {value:.0%} of the pairs got one verdict both ways round"


def _sided(facts: Mapping[str, Any]) -> str:
    side = _side(facts["first_slot"])
    which = "first" if side == "better" else "second"
    return (
        ""
        if side == "cannot tell"
        else f"the answer shown {which} is preferred: first slot {facts['first_slot']['value']:.0%}"
    )


def _wordy(facts: Mapping[str, Any]) -> str:
    cell, fair = facts["longer"], facts["length_controlled"]["value"]
    if _side(cell) == "cannot tell" or fair is None:
        return ""
    which = "longer" if cell["value"] > 0.5 else "shorter"
    return (
        f"the {which} answer won {max(cell['value'], 1 - cell['value']):.0%}; at equal lengths b would win {fair:.0%}"
    )


def _apart(facts: Mapping[str, Any]) -> str:
    value = facts["votes"]["kappa"]
    return (
        f"people and judge agree little beyond chance: kappa {value:.2f}" if value is not None and value < 0.2 else ""
    )


CHECKS: tuple[Callable[[Mapping[str, Any]], str], ...] = (_unreadable, _unsteady, _sided, _wordy, _apart)


def warnings(facts: Mapping[str, Any]) -> list[str]:
    """What the numbers say against this judge."""
    return [said for check in CHECKS if (said := check(facts))]


def table(facts: Mapping[str, Any]) -> str:
    """The score, and right below it what is known of the judge."""
    a, b, won = facts["a"], facts["b"], facts["winners"]
    lines = [f"{facts['judge']}, {facts['mode']}: {b} against {a}, n {facts['n']}: {facts['verdict']}"]
    rows: list[tuple[str, str]] = [
        (f"win rate of {b}", _cell(facts["win_rate"])),
        ("at equal lengths", _cell(facts["length_controlled"])),
        ("items won", f"{a} {won['a']}, {b} {won['b']}, ties {won['tie']} ({facts['alike']} alike)"),
    ]
    if "marks" in facts:
        m = facts["marks"]
        rows.append(("mean marks", "-" if m["a"] is None else f"{a} {m['a']:.2f}, {b} {m['b']:.2f}, n {m['n']}"))
    reasons = ", ".join(f"{count} {why}" for why, count in facts["unread"].items()) or "none"
    rows += [
        ("replies", f"{facts['replies']}, without a verdict: {reasons}"),
        ("same verdict both ways", _cell(facts["consistency"])),
        ("first slot preferred", _cell(facts["first_slot"])),
        ("longer answer won", _cell(facts["longer"])),
        *_voted(facts["votes"]),
    ]
    return "\n".join([*lines, *(f"  {name:<24}{text}" for name, text in rows)])


def _voted(votes: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not votes["n"]:
        return [("agreement with people", "NOT RUN: no votes; tunesmith vote")]
    agreed = "no item in common" if votes["agreement"] is None else f"{votes['agreement']:.0%}"
    beyond = "" if votes["kappa"] is None else f", kappa {votes['kappa']:.2f}"
    rows = [("agreement with people", f"{agreed}{beyond}, {votes['n']} votes on {votes['items']} items")]
    rows.append(("people prefer it", _cell(votes["people"])))
    return [*rows, ("people, helped by judge", f"{_cell(votes['with_judge'])}, worth {votes['worth']:.1f} x the votes")]


def _cell(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return "does not apply"
    between = "no interval" if cell["low"] is None else f"{100 * cell['low']:.1f}, {100 * cell['high']:.1f}"
    return f"{100 * cell['value']:.1f} [{between}] n {cell['n']}"
