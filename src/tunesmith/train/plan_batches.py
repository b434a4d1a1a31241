"""Which examples go into which step: a pure function of (seed, step), so resuming needs no replay.

A step's batch is cut into micro-batches by tokens: packed, one flat row of documents each, or padded, longest rows
first. The cut changes speed and memory, never the gradient: the loss is normalised by the trained tokens of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

IGNORE = -100  # the label of a position that is not trained; the field's number, and torch's default
Ids = npt.NDArray[np.int64]


class Trainable(Protocol):
    """A training sequence, in memory (text.render.Example) or in a file (train.tokens.Stored)."""

    @property
    def ids(self) -> Sequence[int] | npt.NDArray[np.int32]: ...

    @property
    def mask(self) -> Sequence[bool] | npt.NDArray[np.bool_]: ...

    @property
    def row_id(self) -> str: ...


@dataclass(frozen=True)
class MicroBatch:
    """Token ids and labels, both (B, T), right-padded. Real tokens are told by `lengths`, never by the pad id.

    A packed one is a single row (1, T) of documents that do not see one another; `lengths` are theirs, their sum is T.
    """

    input_ids: Ids
    labels: Ids
    lengths: Ids
    packed: bool = False

    @property
    def attention_mask(self) -> Ids:
        steps = np.arange(self.input_ids.shape[1])
        return (steps[None, :] < self.lengths[:, None]).astype(np.int64)

    @property
    def trained_tokens(self) -> int:
        """Positions whose label counts. The first token of a row is never predicted."""
        return int((self.labels[:, 1:] != IGNORE).sum())

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def pairs(self) -> int:
        """Of a token and one that it attends to in its document, itself included: what attention must do."""
        return int((self.lengths * (self.lengths + 1) // 2).sum())


class Source(Protocol):
    """Where batches come from: `step(n)` is the batch of optimizer step n, whatever was asked before."""

    @property
    def steps_per_epoch(self) -> int: ...

    def step(self, n: int) -> list[MicroBatch]: ...


def collate(examples: Sequence[Trainable], pad_id: int) -> MicroBatch:
    """Pad to the longest row. Labels are the ids where the mask is true."""
    lengths = np.array([len(e.ids) for e in examples], dtype=np.int64)
    shape = (len(examples), int(lengths.max()))
    ids, labels = np.full(shape, pad_id, dtype=np.int64), np.full(shape, IGNORE, dtype=np.int64)
    for row, example in enumerate(examples):
        ids[row, : lengths[row]] = example.ids
        labels[row, : lengths[row]] = np.where(example.mask, example.ids, IGNORE)
    return MicroBatch(ids, labels, lengths)


def pack(examples: Sequence[Trainable]) -> MicroBatch:
    """One flat row. The first token of a document has no label: what is before it belongs to another one."""
    lengths = np.array([len(e.ids) for e in examples], dtype=np.int64)
    ids = np.concatenate([np.asarray(e.ids, dtype=np.int64) for e in examples])
    trained = np.concatenate([np.asarray(e.mask, dtype=np.bool_) for e in examples])
    trained[np.cumsum(lengths) - lengths] = False
    return MicroBatch(ids[None], np.where(trained, ids, IGNORE)[None], lengths, packed=True)


def cut(examples: Sequence[Trainable], micro_tokens: int, pad_id: int | None) -> list[MicroBatch]:
    """Micro-batches of at most `micro_tokens` tokens with padding (a longer row stands alone), longest rows first.

    Packed where `pad_id` is None: each row goes to the first micro-batch that has room for it.
    """
    longest_first = sorted(examples, key=lambda e: len(e.ids), reverse=True)
    if pad_id is None:
        return [pack(group) for group in _first_fit(longest_first, micro_tokens)]
    groups: list[list[Trainable]] = []
    for example in longest_first:
        if groups and (len(groups[-1]) + 1) * len(groups[-1][0].ids) <= micro_tokens:
            groups[-1].append(example)
        else:
            groups.append([example])
    return [collate(group, pad_id) for group in groups]


def _first_fit(examples: Sequence[Trainable], room: int) -> list[list[Trainable]]:
    groups: list[list[Trainable]] = []
    left: list[int] = []
    for example in examples:
        size = len(example.ids)
        at = next((i for i, free in enumerate(left) if size <= free), len(groups))
        if at == len(groups):
            groups.append([])
            left.append(room)
        groups[at].append(example)
        left[at] -= size
    return groups


def permutation(n: int, seed: int, epoch: int) -> Ids:
    """The order of one epoch, derived from (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(n)


@dataclass(frozen=True)
class ExampleSource:
    """Examples in a fresh order each epoch; an epoch's last batch is smaller, so every row is seen once.

    Packed where `pad_id` is None.
    """

    examples: Sequence[Trainable]
    batch_size: int
    micro_tokens: int
    pad_id: int | None
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def step(self, n: int) -> list[MicroBatch]:
        epoch, at = divmod(n, self.steps_per_epoch)
        order = permutation(len(self.examples), self.seed, epoch)
        chosen = order[at * self.batch_size : (at + 1) * self.batch_size]
        return cut([self.examples[i] for i in chosen], self.micro_tokens, self.pad_id)

    def all(self) -> list[MicroBatch]:
        """Every example once, for validation."""
        return cut(self.examples, self.micro_tokens, self.pad_id)


@dataclass(frozen=True)
class BlockSource:
    """Raw text as one stream of ids, cut into blocks of `block` + 1 so that `block` tokens of each are predicted."""

    stream: npt.NDArray[np.int32]
    block: int
    batch_size: int
    micro_tokens: int
    seed: int = 0

    @property
    def blocks(self) -> int:
        return (len(self.stream) - 1) // self.block

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.blocks // self.batch_size)

    def step(self, n: int) -> list[MicroBatch]:
        epoch, at = divmod(n, self.steps_per_epoch)
        order = permutation(self.blocks, self.seed, epoch)
        return self._cut(order[at * self.batch_size : (at + 1) * self.batch_size])

    def all(self) -> list[MicroBatch]:
        return self._cut(np.arange(self.blocks))

    def _cut(self, chosen: Ids) -> list[MicroBatch]:
        rows = max(1, self.micro_tokens // (self.block + 1))
        return [self._collate(chosen[at : at + rows]) for at in range(0, len(chosen), rows)]

    def _collate(self, chosen: Ids) -> MicroBatch:
        spans = chosen[:, None] * self.block + np.arange(self.block + 1)[None, :]
        ids = self.stream[spans].astype(np.int64)
        return MicroBatch(ids, ids, np.full(len(chosen), self.block + 1, dtype=np.int64))


class Ahead:
    """A source whose next batch is made in a thread of its own while the current one is computed with."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._pool = ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, Future[list[MicroBatch]]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self.source.steps_per_epoch

    def step(self, n: int) -> list[MicroBatch]:
        made = self._next[1].result() if self._next and self._next[0] == n else self.source.step(n)
        self._next = n + 1, self._pool.submit(self.source.step, n + 1)
        return made

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def halve(micro: MicroBatch) -> list[MicroBatch]:
    """Its rows in two parts, each padded no further than it must be; one row stays as it is."""
    rows = len(micro.lengths)
    parts = [slice(0, rows // 2), slice(rows // 2, rows)] if rows > 1 else [slice(0, rows)]
    return [_packed_rows(micro, part) if micro.packed else _padded_rows(micro, part) for part in parts]


def _packed_rows(micro: MicroBatch, part: slice) -> MicroBatch:
    bounds = [0, *np.cumsum(micro.lengths).tolist()]
    tokens = slice(bounds[part.start], bounds[part.stop])
    return MicroBatch(micro.input_ids[:, tokens], micro.labels[:, tokens], micro.lengths[part], packed=True)


def _padded_rows(micro: MicroBatch, part: slice) -> MicroBatch:
    width = int(micro.lengths[part].max())
    return MicroBatch(micro.input_ids[part, :width], micro.labels[part, :width], micro.lengths[part])


def shorten(micro: MicroBatch, tokens: int) -> MicroBatch:
    """The last `tokens` of a micro-batch of one row: to measure what would fit in memory, never to train on."""
    end = int(micro.lengths[0])
    part = slice(max(0, end - tokens), end)
    length = np.array([part.stop - part.start])
    return MicroBatch(micro.input_ids[:, part], micro.labels[:, part], length, micro.packed)
