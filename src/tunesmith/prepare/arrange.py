"""The steps of prepare that look at all rows at once: near-duplicates, groups, splits, and whether anything leaked.

They read of a row what the user says, a key of its answer, and `meta`; so they run on whole rows, and on the index that
is all that is held of a corpus in shards (`sharded.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.artifact import Artifact
from tunesmith.core.jsonl import read_rows
from tunesmith.core.records import Message, Meta, Reject, Row
from tunesmith.core.runlog import say
from tunesmith.prepare.config import SPLITTING, PrepareConfig
from tunesmith.prepare.corpus import Corpus, Near
from tunesmith.prepare.groups import Groups, Questions, alike, drop_near, group, questions, said, same_words
from tunesmith.prepare.split import LEAK, SPLITS, Splits, leaked, random_split, split

LeaveOut = Callable[[Corpus], tuple[list[Row], list[Reject]]]


@dataclass(frozen=True)
class Arranged:
    """The rows that were kept, where each went, and the rows that were left out, each at the place of its reject."""

    rows: list[Row]
    splits: Splits
    asking: Questions
    near: Near
    groups: Groups
    nearly: list[Reject]
    unwanted: list[Reject]
    bridging: list[Reject]
    left_out: list[Row]

    @property
    def rejects(self) -> list[Reject]:
        return [*self.nearly, *self.unwanted, *self.bridging]

    def corpus(self, config: PrepareConfig) -> Corpus:
        return _corpus(config, self.rows, self.asking, self.near)

    def counts(self, config: PrepareConfig) -> dict[str, Any]:
        """What the receipt says of it."""
        sizes = {side: len(self.splits[side]) for side in SPLITS}
        return {
            "near_duplicates": len(self.nearly),
            "leaked": leaked(self.splits, self.asking),
            "leaked_random_split": leaked(random_split(self.rows, sizes, config.seed), self.asking),
            **sizes,
            "groups": len(set(self.groups.key.values())),
        }


def arrange(
    config: PrepareConfig,
    rows: Sequence[Row],
    before: Mapping[str, Sequence[Row]],
    leave_out: LeaveOut | None = None,
) -> Arranged:
    """Drop near-duplicates (and what `leave_out` says), group what is alike, and split.

    `before`: what `earlier` gave of the previous set.
    """
    asking = questions(rows, before)
    near = alike(asking, config.alike)
    apart, nearly = drop_near(rows, asking, near, config.near_duplicate_threshold)
    wanted, unwanted = leave_out(_corpus(config, apart, asking, near)) if leave_out else (apart, [])
    links = [(i, j) for i, j, score in near if score >= config.leak_threshold]
    links += same_words(asking, max(LEAK, config.leak_threshold))
    kept, bridging, groups = group(wanted, before, asking, links)
    shares = {"valid": config.valid_fraction, "test": config.test_fraction}
    splits = split(kept, asking, groups, shares, config.seed)
    left_out = [*_lost(rows, apart), *_lost(apart, wanted), *_lost(wanted, kept)]
    return Arranged(kept, splits, asking, near, groups, nearly, unwanted, bridging, left_out)


def _lost(before: Sequence[Row], after: Sequence[Row]) -> list[Row]:
    kept = set(map(id, after))
    return [row for row in before if id(row) not in kept]


def _corpus(config: PrepareConfig, rows: Sequence[Row], asking: Questions, near: Near) -> Corpus:
    return Corpus.of(rows, [asking.of(row) for row in rows], near, config.alike)


def earlier(config: PrepareConfig, previous: Artifact | None) -> Mapping[str, Sequence[Row]]:
    """What the previous set asks, by split; nothing when the split was asked for in another way."""
    if previous is None:
        return {}
    old, new = previous.facts["config"], config.model_dump(mode="json")
    if changed := [key for key in SPLITTING if old.get(key) != new[key]]:
        say(f"{', '.join(changed)} changed since set {previous.name}: rows are split anew")
        return {}
    return {side: [_question(row) for row in read_rows(previous.path / f"{side}.jsonl")] for side in SPLITS}


def _question(row: Row) -> Row:
    return Row((Message("user", said(row)),), meta=Meta(group=row.meta.group))
