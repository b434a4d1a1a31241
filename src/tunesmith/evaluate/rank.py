"""Votes to the facts of `tunesmith rank`: who is best, how sure that is, and whether the voters agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_numbered
from tunesmith.metrics.rating import Vote, Winner, agreement, bradley_terry, elo

WINNERS: tuple[str, ...] = get_args(Winner)
SHAPE = '{"item": "...", "a": "...", "b": "...", "winner": "a" | "b" | "tie" | "both_bad", "rater": "..."}'


def read_votes(path: Path) -> list[Vote]:
    """The votes of a file, in its order. Raises DataError, with file:line, on a row that is none."""
    votes = [_vote(row, f"{path}:{number}") for number, row in read_numbered(path)]
    if not votes:
        raise DataError("no votes", where=str(path), expected=SHAPE)
    return votes


def _vote(row: dict[str, Any], where: str) -> Vote:
    for key in ("item", "a", "b", "winner"):
        if not isinstance(value := row.get(key), str | int) or isinstance(value, bool) or value == "":
            raise DataError(
                f"a vote without '{key}'" if value is None else f"'{key}' is no text", where=where, expected=SHAPE
            )
    if row["winner"] not in WINNERS:
        raise DataError(f"the winner {row['winner']!r}", where=where, expected=", ".join(WINNERS))
    a, b, rater = str(row["a"]), str(row["b"]), row.get("rater")
    if a == b:
        raise DataError(f"'{a}' against itself", where=where, expected="two models")
    return Vote(str(row["item"]), a, b, row["winner"], "" if rater is None else str(rater))


def facts(votes: Sequence[Vote], seed: int = 0) -> dict[str, Any]:
    """What `rank --json` prints: the ranking, agreement (Krippendorff's alpha) with its interval, each rater's share.

    `elo` is for display: it depends on the order of the votes, as `rating` does not.
    """
    ranking, alike, online = bradley_terry(votes, seed), agreement(votes, seed), elo(votes)
    counts = Counter(vote.rater for vote in votes)
    models = [
        {
            **{key: getattr(one, key) for key in ("name", "rating", "low", "high", "n", "both_bad")},
            "elo": online[one.name],
        }
        for one in ranking.models
    ]
    return {
        "models": models,
        "agreement": alike.alpha,
        "agreement_low": alike.low,
        "agreement_high": alike.high,
        "agreement_n": alike.n,
        "raters": len(counts),
        "by_rater": [{"rater": r, "n": counts[r], "with_others": s} for r, s in alike.with_others.items()],
        "votes": len(votes),
        "items": len({vote.item for vote in votes}),
        "connected": len(ranking.groups) == 1,
        "notes": ranking.notes,
    }


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    width = max(len("model"), *(len(one["name"]) for one in found["models"]))
    lines = [f"  {'model':<{width}}  rating  95 %            votes  both bad"]
    for one in found["models"]:
        bounds = "no interval" if one["low"] is None else f"[{one['low']:.0f}, {one['high']:.0f}]"
        lines.append(
            f"  {one['name']:<{width}}  {one['rating']:6.0f}  {bounds:<14}  {one['n']:5,}  {one['both_bad']:8,}"
        )
    lines.append(
        f"  {found['votes']:,} votes on {found['items']:,} items by {found['raters']:,} raters; {_alike(found)}"
    )
    if len(found["by_rater"]) > 2:
        for one in found["by_rater"]:
            share = (
                "nobody else voted on the same"
                if one["with_others"] is None
                else f"{one['with_others']:.0%} as the others"
            )
            lines.append(f"    {one['rater'] or '(no name)'}: {one['n']:,} votes, {share}")
    return "\n".join([*lines, *(f"  note: {note}" for note in found["notes"])])


def _alike(found: dict[str, Any]) -> str:
    if found["agreement"] is None:
        return "agreement NOT RUN: no pair has the votes of two raters that differ at all"
    bounds = "" if found["agreement_low"] is None else f" [{found['agreement_low']:.2f}, {found['agreement_high']:.2f}]"
    return f"agreement (alpha) {found['agreement']:.2f}{bounds} over {found['agreement_n']:,} pairs"
