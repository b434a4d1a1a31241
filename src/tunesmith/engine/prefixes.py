"""What texts share: computed once. Plain token ids; nothing here knows a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

Ids = Sequence[int]
LEAST_SHARED = 32  # tokens; a shorter prefix is computed faster than a pass of its own begins


@dataclass(frozen=True)
class Text:
    """Token ids, and which model reads them: the adapted one, or the base below the adapter."""

    ids: tuple[int, ...]
    adapted: bool = True


@dataclass(frozen=True)
class Family:
    """Continuations of one prompt. `ends`: (number of the request, its token ids)."""

    prompt: Text
    ends: tuple[tuple[int, Ids], ...]

    @property
    def fed(self) -> int:
        """The tokens that a model is given: the last of a continuation is only asked for."""
        return len(self.prompt.ids) + sum(len(end) - 1 for _, end in self.ends)

    @property
    def asked(self) -> int:
        """The tokens that are looked up."""
        return sum(len(end) for _, end in self.ends)


def shared(first: Ids, second: Ids) -> int:
    """How many tokens two texts begin with together."""
    return next(
        (n for n, (one, two) in enumerate(zip(first, second, strict=False)) if one != two), _shorter(first, second)
    )


def _shorter(first: Ids, second: Ids) -> int:
    return min(len(first), len(second))


def shared_by_all(texts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all of them begin with, leaving each at least one of its own; 0 where it is not worth a pass."""
    if len(texts) < 2:
        return 0
    lowest, highest = min(texts), max(texts)  # in order, the two that differ earliest
    found = min(shared(lowest, highest), min(map(len, texts)) - 1)
    return found if found >= LEAST_SHARED else 0


def families(requests: Sequence[tuple[Text, Ids]], tokens: int) -> list[Family]:
    """Requests by prompt, in the order of the prompts' ids, so that neighbours share the most.

    A family that is more than `tokens` tokens is cut into several; requests without a continuation are left out.
    """
    ends: dict[Text, list[tuple[int, Ids]]] = {}
    for number, (prompt, end) in enumerate(requests):
        if end:
            ends.setdefault(prompt, []).append((number, end))
    made = []
    for prompt in sorted(ends, key=lambda text: (text.adapted, text.ids)):
        some: list[tuple[int, Ids]] = []
        for one in ends[prompt]:
            if some and Family(prompt, (*some, one)).fed > tokens:
                made.append(Family(prompt, tuple(some)))
                some = []
            some.append(one)
        made.append(Family(prompt, tuple(some)))
    return made


@dataclass(frozen=True)
class Group:
    """Families whose prompts begin with the same `prefix` tokens, which are computed once; 0 for none."""

    prefix: int
    families: list[Family]

    @property
    def room(self) -> int:
        """Tokens of the longest family after the prefix."""
        return max(family.fed for family in self.families) - self.prefix


def groups(sorted_families: Sequence[Family]) -> list[Group]:
    """Runs of families whose neighbours share at least half of their prompts: one few-shot block each."""
    runs: list[list[Family]] = []
    for before, family in pairwise([None, *sorted_families]):
        assert family is not None
        if before is None or not _alike(before.prompt, family.prompt):
            runs.append([])
        runs[-1].append(family)
    return [Group(shared_by_all([family.prompt.ids for family in run]), run) for run in runs]


def _alike(one: Text, two: Text) -> bool:
    longest = max(len(one.ids), len(two.ids))
    return one.adapted == two.adapted and 2 * shared(one.ids, two.ids) >= max(longest, 2 * LEAST_SHARED)


def waves(every: Sequence[Group], tokens: int) -> Iterator[list[Group]]:
    """Runs of groups whose prefixes are `tokens` tokens together, which are kept at once; one group always goes."""
    wave: list[Group] = []
    for group in every:
        if wave and sum(one.prefix for one in wave) + group.prefix > tokens:
            yield wave
            wave = []
        wave.append(group)
    if wave:
        yield wave


def packs(wave: Sequence[Group], tokens: int, asked: int) -> Iterator[list[tuple[Family, int]]]:
    """The families of a wave, each with its group's number, in passes.

    A pass is at most `tokens` tokens, prefixes left out, of which `asked` are looked up; one family always goes.
    """
    pack: list[tuple[Family, int]] = []
    size = looked_up = 0
    for number, group in enumerate(wave):
        for family in group.families:
            size, looked_up = size + family.fed - group.prefix, looked_up + family.asked
            if pack and (size > tokens or looked_up > asked):
                yield pack
                pack, size, looked_up = [], family.fed - group.prefix, family.asked
            pack.append((family, number))
    if pack:
        yield pack
