"""A model that runs over padded rows and transformers' own cache: for those that flat rows do not suit (see flat.py).

Prompts are padded on the left, so that the last column is the newest token of every row; positions are counted from a
row's own first token. A batch begins together; a row that has finished leaves it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tunesmith.engine import prefixes
from tunesmith.engine.mixed import RowAdapter
from tunesmith.engine.prefixes import Family, Ids, Text
from tunesmith.model.head import decoder_of
from tunesmith.model.load import context_length

FILLER = 0  # any id will do: padding is masked by length, never by token
BATCH_TOKENS = 4096  # of one batch of scores or vectors, padding counted in
LOGIT_VALUES = 1 << 27  # see flat.py


class PaddedRunner:
    """The same calls as `flat.FlatRunner`."""

    joins = False

    def __init__(self, model: PreTrainedModel, adapter: RowAdapter | None = None) -> None:
        self.model, self.adapter, self.device = model, adapter, model.device
        self.inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.accepted = set(inspect.signature(self.inner.forward).parameters)
        self.context = context_length(model.config)
        self.asked = LOGIT_VALUES // self.inner.config.get_text_config().vocab_size

    def using(self) -> AbstractContextManager[None]:
        return nullcontext()

    def begin(self, texts: Sequence[Text]) -> None:
        """Nothing is shared here but equal prompts of one batch of scores."""

    def advance(self, fresh: Sequence[Text], newest: Sequence[int]) -> Tensor:
        """See `flat.FlatRunner.advance`; fresh texts come only where there are no others."""
        if fresh:
            self.texts = list(fresh)
            logits, self.mask, self.cache = self._prefill(fresh)
            return logits
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(newest), 1)], dim=1)
        ids = torch.tensor([[new] for new in newest], device=self.device)
        return self._forward(ids, self.mask, self.mask.sum(dim=1, keepdim=True) - 1, self.cache)[:, -1]

    def keep(self, order: Sequence[int]) -> None:
        rows = torch.tensor(order, dtype=torch.long, device=self.device)
        self.cache.reorder_cache(rows)
        self.mask, self.texts = self.mask[rows], [self.texts[i] for i in order]

    def score(self, requests: Sequence[tuple[Text, Ids]]) -> list[list[float]]:
        """Prompts once each, then all continuations in one pass over the copies of their keys and values."""
        scores: list[list[float]] = [[] for _ in requests]
        order = sorted(prefixes.families(requests, BATCH_TOKENS), key=lambda one: -len(one.prompt.ids))
        for some in self._batches(order):
            ends = [end for family in some for _, end in family.ends]
            found = self._score([family.prompt for family in some], [len(family.ends) for family in some], ends)
            numbers = [number for family in some for number, _ in family.ends]
            for number, end, row in zip(numbers, ends, found.tolist(), strict=True):
                scores[number] = row[: len(end)]
        return scores

    def _batches(self, order: Sequence[Family]) -> Iterator[list[Family]]:
        some: list[Family] = []
        for family in order:
            new = [*some, family]
            rows, longest = sum(len(one.ends) for one in new), max(len(end) for one in new for _, end in one.ends)
            width = max(len(one.prompt.ids) for one in new) + longest
            if some and (rows * width > BATCH_TOKENS or rows * longest > self.asked):
                yield some
                new = [family]
            some = new
        if some:
            yield some

    def _score(self, prompts: Sequence[Text], counts: Sequence[int], ends: Sequence[Ids]) -> Tensor:
        self.texts = list(prompts)
        logits, mask, cache = self._prefill(prompts)
        of_prompt = torch.arange(len(prompts), device=self.device).repeat_interleave(
            torch.tensor(counts, device=self.device)
        )
        heads = logits.float().log_softmax(dim=-1)[of_prompt, [end[0] for end in ends]].unsqueeze(1)
        width = max(map(len, ends)) - 1
        if not width:
            return heads
        cache.reorder_cache(of_prompt)
        self.texts = [prompts[i] for i in of_prompt.tolist()]
        return torch.cat([heads, self._tails(ends, width, mask[of_prompt], cache)], dim=1)

    def _tails(self, ends: Sequence[Ids], width: int, mask: Tensor, cache: DynamicCache) -> Tensor:
        """[rows, width] log-probabilities of the tokens after the first, 0 where a continuation is shorter."""
        fed, real = _pad([end[:-1] for end in ends], width, self.device, left=False)
        targets, _ = _pad([end[1:] for end in ends], width, self.device, left=False)
        positions = mask.sum(dim=1, keepdim=True) + torch.arange(width, device=self.device)
        positions = positions.clamp(max=self.context - 1)  # a learned table has no row for padding beyond the context
        logits = self._forward(fed, torch.cat([mask, real], dim=1), positions, cache, last_only=False)
        found = logits.float().log_softmax(dim=-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        return found.masked_fill(real == 0, 0.0)

    def embed(self, texts: Sequence[Text]) -> Tensor:
        """float32 [texts, hidden size]: the mean of a text's last hidden states."""
        vectors = []
        for text in texts:
            self.texts = [text]
            ids = torch.tensor([text.ids], device=self.device)
            self._switch()
            states = decoder_of(self.inner)(input_ids=ids, use_cache=False).last_hidden_state
            vectors.append(states[0].float().mean(dim=0))
        return torch.stack(vectors)

    def _prefill(self, prompts: Sequence[Text]) -> tuple[Tensor, Tensor, DynamicCache]:
        """The logits after each prompt [rows, vocabulary], the mask [rows, width] and the cache."""
        ids, mask = _pad([text.ids for text in prompts], max(len(text.ids) for text in prompts), self.device, left=True)
        cache = DynamicCache(config=self.inner.config)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return self._forward(ids, mask, positions, cache)[:, -1], mask, cache

    def _forward(
        self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache, last_only: bool = True
    ) -> Tensor:
        """Logits [rows, columns, vocabulary], of the last column only where the architecture can tell it apart."""
        self._switch()
        extra: dict[str, Any] = {"position_ids": positions, "logits_to_keep": 1 if last_only else 0}
        extra = {name: value for name, value in extra.items() if name in self.accepted}
        out = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
        logits: Tensor = out.logits
        return logits

    def _switch(self) -> None:
        if self.adapter is not None:
            on = torch.tensor([text.adapted for text in self.texts], device=self.device)
            self.adapter.rows = None if bool(on.all()) else on[:, None, None]


def _pad(rows: Sequence[Ids], width: int, device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both [rows, width]; the mask is made of the lengths."""
    ids = torch.full((len(rows), width), FILLER)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        at = slice(width - len(row), width) if left else slice(0, len(row))
        ids[place, at], mask[place, at] = torch.tensor(row, dtype=torch.long), 1
    return ids.to(device), mask.to(device)
