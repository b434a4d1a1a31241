"""When memory runs out inside a step: smaller micro-batches and the same gradient, or what would fit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from tunesmith.core.errors import ResourceError
from tunesmith.train.plan_batches import MicroBatch, halve, shorten

_WORDS = (  # of the RuntimeErrors that mean it: torch's CPU allocator, C++'s own, CUDA's driver, cuBLAS
    "can't allocate memory",
    "bad_alloc",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class OutOfMemory(Exception):
    """Told apart from every other RuntimeError. Until its handler is left, it keeps the tensors of the step alive."""


@contextmanager
def caught() -> Iterator[None]:
    """Turn each way in which memory runs out into OutOfMemory, and pass every other error on."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in _WORDS):
            raise
        raise OutOfMemory from error


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def within(micros: list[MicroBatch], limit: int | None) -> list[MicroBatch]:
    """Halve what has more than `limit` positions until it has not, or is one row. None leaves all as they are."""
    out: list[MicroBatch] = []
    for micro in micros:
        parts = halve(micro) if limit is not None and micro.input_ids.size > limit else [micro]
        out += within(parts, limit) if len(parts) > 1 else parts
    return out


def next_limit(micros: list[MicroBatch]) -> int | None:
    """Half the positions of the largest micro-batch that can be halved; None where none can."""
    sizes = [micro.input_ids.size for micro in micros if len(halve(micro)) > 1]
    return max(sizes) // 2 if sizes else None


def refuse(attempt: Callable[[MicroBatch], object], micros: list[MicroBatch]) -> ResourceError:
    """The error for a row that does not fit alone, with the longest part of it that does, to a 16th: measured here."""
    micro = max(micros, key=lambda one: one.tokens)
    fits, fails = 0, micro.tokens
    while fails - fits > max(1, fails // 16):
        middle = (fits + fails) // 2
        if _fits(attempt, shorten(micro, middle)):
            fits = middle
        else:
            fails = middle
    what = f"one row of {micro.tokens} tokens does not fit in memory, and a step cannot be cut smaller"
    if fits < 8:  # the least that max_length may be
        return ResourceError(what, fix="a smaller base, --method lora, or a machine with more memory")
    return ResourceError(what, expected=f"rows of at most {fits} tokens (measured)", fix=f"--max-length {fits}")


def _fits(attempt: Callable[[MicroBatch], object], micro: MicroBatch) -> bool:
    try:
        with caught():
            attempt(micro)
        return True
    except OutOfMemory:
        pass
    free()
    return False
