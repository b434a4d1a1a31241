"""How one row of a batch chooses its next token, and where its text stops. Nothing here looks at another row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.core.errors import ModelError
from tunesmith.engine.base import Sampling

if TYPE_CHECKING:
    import torch

_THOUGHT, _THOUGHT_END = re.compile(r"\s*<think>\s*"), "</think>"
STOP_MARGIN = 8  # tokens; some decoders strip a space or half a character at the start of what they are given


def next_ids(logits: torch.Tensor, samplings: Sequence[Sampling], draws: Sequence[float]) -> list[int]:
    """The next token of each row. `logits`: [rows, vocabulary]; `draws`: one number in [0, 1) a row, unused by greedy.

    Raises ModelError on logits that are not finite: a model that diverged in training.
    """
    best, ids = logits.max(dim=-1)
    if not bool(best.isfinite().all()):
        fix = "train with a lower learning_rate, or with --dtype float32"
        raise ModelError("the model's outputs are not finite numbers: it has diverged", fix=fix)
    warm = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if warm:
        ids[warm] = _draw(logits[warm].double(), [samplings[row] for row in warm], [draws[row] for row in warm])
    return [int(i) for i in ids.tolist()]


def _draw(logits: torch.Tensor, samplings: Sequence[Sampling], draws: Sequence[float]) -> torch.Tensor:
    """Temperature, then top_k, then top_p (the fewest tokens that hold that share), then the inverse of the CDF."""
    import torch

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=logits.dtype, device=logits.device).unsqueeze(1)

    scaled = logits / column([sampling.temperature for sampling in samplings])
    values, ids = scaled.sort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(values.shape[1], device=values.device)
    most = column([sampling.top_k or values.shape[1] for sampling in samplings])
    share = values.masked_fill(ranks >= most, -torch.inf).softmax(dim=-1)
    before = share.cumsum(dim=-1) - share
    kept = (before < column([sampling.top_p for sampling in samplings])) | (ranks == 0)
    total = (share * kept).cumsum(dim=-1)
    place = torch.searchsorted(total, column(draws) * total[:, -1:], right=True)
    last = (kept & (share > 0)).sum(dim=-1, keepdim=True) - 1
    return ids.gather(1, place.minimum(last)).squeeze(1)


def stop_window(stops: Sequence[str]) -> int:
    """How many last tokens must be read to see a stop string that ends in the newest: a token is a byte at least."""
    return max((len(stop.encode()) for stop in stops), default=0) + STOP_MARGIN


def answer_start(text: str) -> int:
    """Where the answer begins in a generated text: after an empty thought, at the end of one that may become empty.

    Qwen3's template and others put `<think></think>` and empty lines before every answer that they render, so a model
    that was tuned with them writes that first. It is no part of what is said. A thought with a text is left as it is.
    """
    match = _THOUGHT.match(text)
    rest = text[match.end() :] if match else ""
    if rest.startswith(_THOUGHT_END):
        return len(text) - len(rest.removeprefix(_THOUGHT_END).lstrip())
    return len(text) if match and _THOUGHT_END.startswith(rest) else 0


def first_stop(text: str, stops: Sequence[str], start: int = 0) -> int | None:
    """Where the earliest stop string begins in `text`, from `start` on, or None."""
    found = [place for stop in stops if stop and (place := text.find(stop, start)) >= 0]
    return min(found, default=None)
