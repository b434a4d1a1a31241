"""Which split each group goes to; then, measured another way, whether anything leaked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunesmith.core.records import Row
from tunesmith.prepare.clean import place
from tunesmith.prepare.groups import Groups, Questions, said
from tunesmith.text.similar import cross_pairs

SPLITS = ("train", "valid", "test")
LEAK = 0.8  # Jaccard, of 4-grams or of words, from which two questions in different splits count as leaked

Splits = dict[str, list[Row]]
Shares = dict[str, float]  # of valid and test; train is the rest


def split(rows: Sequence[Row], asking: Questions, groups: Groups, shares: Shares, seed: int) -> Splits:
    """Every row to the split of its group, with the group's name in meta.group; order is kept."""
    name_of = [groups.key[asking.of(row)] for row in rows]
    sides = _sides(Counter(name_of), groups.split, shares, seed)
    out: Splits = {side: [] for side in SPLITS}
    for row, name in zip(rows, name_of, strict=True):
        out[sides[name]].append(replace(row, meta=replace(row.meta, group=name)))
    return out


def _sides(sizes: Counter[str], old: dict[str, str], shares: Shares, seed: int) -> dict[str, str]:
    """The split of each group: its old one, or by its hash. A group larger than a whole split is trained on."""
    order = sorted(sizes, key=lambda name: _draw(name, seed))
    most = {side: max(1.0, share * sizes.total()) for side, share in shares.items()}
    sides = {}
    for name in order:
        side = _by_draw(_draw(name, seed), shares)
        fits = side == "train" or sizes[name] <= most[side]
        sides[name] = old.get(name) or (side if fits else "train")
    for side in ("test", "valid", "train"):
        if shares.get(side, 1.0) > 0 and len(sizes) >= len(SPLITS) and side not in sides.values():
            _promote(side, sides, [name for name in order if name not in old], sizes)
    return sides


def _promote(side: str, sides: dict[str, str], free: list[str], sizes: Counter[str]) -> None:
    """Move a group to an empty split: of the smallest groups that leave no split empty, the lowest draw."""
    members = Counter(sides.values())
    movable = [name for name in free if members[sides[name]] > 1]
    if movable:
        sides[min(movable, key=lambda name: sizes[name])] = side


def _by_draw(draw: float, shares: Shares) -> str:
    if draw < shares["test"]:
        return "test"
    return "valid" if draw < shares["test"] + shares["valid"] else "train"


def _draw(name: str, seed: int) -> float:
    """A number in [0, 1) that only the name and the seed decide."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def random_split(rows: Sequence[Row], sizes: dict[str, int], seed: int) -> Splits:
    """What a plain shuffle would give, in the same sizes: the yardstick for what grouping prevents."""
    shuffled = sorted(rows, key=lambda row: _draw(f"{place(row)} {said(row)}", seed))
    out: Splits = {}
    for side in SPLITS:
        out[side], shuffled = shuffled[: sizes[side]], shuffled[sizes[side] :]
    return out


def leaked(splits: Splits, asking: Questions) -> int:
    """Pairs of nearly equal questions that lie in two splits: test against the others, and train against valid.

    An exact count over all pairs, which uses neither the groups nor the MinHash that made them.
    """
    train, valid, test = ({asking.of(row) for row in splits[side]} for side in SPLITS)
    return _pairs(train | valid, test, asking) + _pairs(train, valid, asking)


def _pairs(left: set[int], right: set[int], asking: Questions) -> int:
    ours, theirs = np.array(sorted(left), dtype=np.int64), np.array(sorted(right), dtype=np.int64)
    found: set[tuple[int, int]] = set()
    for sets in asking.parts:
        found |= {(i, j) for i, j, _ in cross_pairs(sets.take(ours), sets.take(theirs), LEAK)}
    return len(found)
