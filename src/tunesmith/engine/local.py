"""The local engine: a `transformers` model, batched. What a request gives does not depend on its batch-mates.

Prompts are padded on the left, so that the last column is the newest token of every row; positions are counted from a
row's own first token. A row that has finished leaves the batch, and its keys and values leave the cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Literal, Protocol

import torch
from transformers import DynamicCache, PreTrainedModel

from tunesmith.core.errors import ModelError
from tunesmith.engine.base import Generation, Sampling, Score
from tunesmith.engine.sampling import answer_start, first_stop, next_ids, stop_window
from tunesmith.model.load import context_length

Ids = Sequence[int]
LOGIT_VALUES = 1 << 27  # the most float32 logits of one scoring batch: 0.5 GB, whatever the vocabulary
FILLER = 0  # any id will do: padding is masked by length, never by token


class Decoder(Protocol):
    """What the engine needs of a tokenizer."""

    @property
    def eos_id(self) -> int: ...

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str: ...


@dataclass
class _Row:
    """A request on its way. `limit`: the new tokens that it may have, within the context."""

    index: int
    prompt: Ids
    sampling: Sampling
    limit: int
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.sampling.seed)
        self.window = stop_window(self.sampling.stop)


class LocalEngine:
    """`engine.base.Engine` over a model in memory. `batch_tokens` bounds rows x (prompt + new tokens) of one batch."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Decoder,
        *,
        batch_tokens: int = 16384,
        batch_rows: int = 64,
        stop_ids: Ids = (),
    ) -> None:
        """A token of `stop_ids`, of the model's generation config, or the tokenizer's eos ends a text.

        Raises ModelError on a model that keeps no keys and values.
        """
        self.model, self.tokenizer = model, tokenizer
        self.batch_tokens, self.batch_rows = batch_tokens, batch_rows
        self.context = context_length(model.config)
        eos = model.generation_config.eos_token_id
        listed = eos if isinstance(eos, list) else [] if eos is None else [eos]
        self.stop_ids = frozenset((*listed, *stop_ids, tokenizer.eos_id))
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter forwards anything
        self._accepted = set(inspect.signature(inner.forward).parameters)
        if "past_key_values" not in self._accepted:
            raise ModelError(f"{type(inner).__name__} keeps no keys and values", expected="a transformer decoder")

    def generate(self, prompts: Sequence[Ids], sampling: Sampling | Sequence[Sampling]) -> list[Generation]:
        """One generation a prompt, in order; `ids` without the stop token, `text` without special tokens and without
        an empty thought.

        Where prompt and max_new_tokens exceed the context, the limit is what fits. Raises ModelError, with the index
        of the prompt, where nothing fits.
        """
        samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
        rows = []
        for index, (prompt, wish) in enumerate(zip(prompts, samplings, strict=True)):
            self._check_prompt(index, len(prompt), needed=len(prompt) + 1)
            rows.append(_Row(index, prompt, wish, min(wish.max_new_tokens, self.context - len(prompt))))
        done = {row.index: self._finish(row, "length") for row in rows if row.limit < 1}
        waiting = sorted((r for r in rows if r.limit > 0), key=lambda r: (len(r.prompt), r.limit), reverse=True)
        with _inference(self.model):
            for start, end in self._batches([(len(r.prompt), r.limit) for r in waiting], self.batch_tokens):
                for row, result in self._generate(waiting[start:end]):
                    done[row.index] = result
        return [done[index] for index in range(len(prompts))]

    def score(self, requests: Sequence[tuple[Ids, Ids]]) -> list[Score]:
        """The log-probability of each continuation token. Equal prompts in a batch are computed once.

        Raises ModelError, with the index of the request, on an empty prompt or one that exceeds the context.
        """
        for index, (prompt, end) in enumerate(requests):
            self._check_prompt(index, len(prompt), needed=len(prompt) + len(end) - 1)
        scores = {index: Score(()) for index in range(len(requests))}
        order = [index for index, (_, end) in enumerate(requests) if end]
        order.sort(key=lambda i: (len(requests[i][0]), tuple(requests[i][0]), len(requests[i][1])), reverse=True)
        sizes = [(len(requests[i][0]), len(requests[i][1])) for i in order]
        with _inference(self.model):
            for first, last in self._batches(sizes, LOGIT_VALUES // self.model.config.get_text_config().vocab_size):
                batch = order[first:last]
                for index, score in zip(batch, self._score([requests[i] for i in batch]), strict=True):
                    scores[index] = score
        return [scores[index] for index in range(len(requests))]

    def _check_prompt(self, index: int, length: int, needed: int) -> None:
        if not length:
            raise ModelError(f"prompt {index} is empty", expected="at least one token")
        if needed > self.context:
            what = f"prompt {index} does not fit: {needed:,} tokens with its continuation"
            raise ModelError(what, expected=f"at most {self.context:,}, the context of the model", fix="shorten it")

    def _batches(self, sizes: Sequence[tuple[int, int]], new_tokens: int) -> Iterator[tuple[int, int]]:
        """Cut a sorted list of (prompt, new) lengths into runs [start, end) within the limits; one row always goes."""
        start, widest, longest = 0, 0, 0
        for place, (prompt, new) in enumerate(sizes):
            widest, longest, rows = max(widest, prompt), max(longest, new), place - start + 1
            full = rows > self.batch_rows or rows * (widest + longest) > self.batch_tokens
            if rows > 1 and (full or rows * longest > new_tokens):
                yield start, place
                start, widest, longest = place, prompt, new
        if sizes:
            yield start, len(sizes)

    def _generate(self, rows: list[_Row]) -> Iterator[tuple[_Row, Generation]]:
        logits, mask, cache = self._prefill([row.prompt for row in rows])
        while True:
            going = []
            draws = [row.random.random() for row in rows]
            for place, new in enumerate(next_ids(logits, [row.sampling for row in rows], draws)):
                ended = self._advance(rows[place], new)
                if ended is None:
                    going.append(place)
                else:
                    yield rows[place], ended
            if not going:
                return
            if len(going) < len(rows):
                keep = torch.tensor(going, device=mask.device)
                cache.reorder_cache(keep)
                rows, mask = [rows[place] for place in going], mask[keep]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            newest = torch.tensor([row.ids[-1:] for row in rows], device=mask.device)
            logits = self._forward(newest, mask, mask.sum(dim=1, keepdim=True) - 1, cache)[:, -1]

    def _advance(self, row: _Row, new: int) -> Generation | None:
        """Give a row its new token; its result where that ends it."""
        if new in self.stop_ids:
            return self._finish(row, "stop")
        row.ids.append(new)
        stops = row.sampling.stop
        if stops and first_stop(self.tokenizer.decode(row.ids[-row.window :]), stops) is not None:
            text = self.tokenizer.decode(row.ids)
            cut = first_stop(text, stops, answer_start(text))
            if cut is not None:
                return self._finish(row, "stop", cut)
        return self._finish(row, "length") if len(row.ids) == row.limit else None

    def _finish(self, row: _Row, finish: Literal["stop", "length"], cut: int | None = None) -> Generation:
        """The result of a row; cut before a stop string, `ids` are the fewest tokens that hold the text."""
        text, ids = self.tokenizer.decode(row.ids)[:cut], row.ids
        while cut is not None and ids and self.tokenizer.decode(ids[:-1]).startswith(text):
            ids = ids[:-1]
        return Generation(text[answer_start(text) :], tuple(ids), finish)

    def _score(self, batch: Sequence[tuple[Ids, Ids]]) -> list[Score]:
        """Prompts once each, then all continuations in one pass over the copies of their keys and values."""
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(tuple(prompt) for prompt, _ in batch))}
        logits, mask, cache = self._prefill(list(places))
        of_prompt = torch.tensor([places[tuple(prompt)] for prompt, _ in batch], device=mask.device)
        ends = [end for _, end in batch]
        heads = logits.float().log_softmax(dim=-1)[of_prompt, [end[0] for end in ends]].unsqueeze(1)
        width = max(map(len, ends)) - 1
        if width:
            cache.reorder_cache(of_prompt)
            heads = torch.cat([heads, self._tails(ends, width, mask[of_prompt], cache)], dim=1)
        if not bool(heads.isfinite().all()):
            raise ModelError("the model's log-probabilities are not finite: it has diverged")
        return [Score(tuple(row[: len(end)])) for row, end in zip(heads.tolist(), ends, strict=True)]

    def _tails(self, ends: Sequence[Ids], width: int, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """[rows, width] log-probabilities of the tokens after the first, 0 where a continuation is shorter."""
        fed, real = _pad([end[:-1] for end in ends], width, mask.device, left=False)
        targets, _ = _pad([end[1:] for end in ends], width, mask.device, left=False)
        start = mask.sum(dim=1, keepdim=True)
        positions = start + torch.arange(width, device=mask.device)
        # a learned position table has no row for padding beyond the context
        positions = positions.clamp(max=self.context - 1)
        logits = self._forward(fed, torch.cat([mask, real], dim=1), positions, cache, last_only=False)
        found = logits.float().log_softmax(dim=-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        return found.masked_fill(real == 0, 0.0)

    def _prefill(self, prompts: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
        """The logits after each prompt [rows, vocabulary], the mask [rows, width] and the cache."""
        ids, mask = _pad(prompts, max(map(len, prompts)), self.model.device, left=True)
        cache = DynamicCache(config=self.model.config)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return self._forward(ids, mask, positions, cache)[:, -1], mask, cache

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: DynamicCache,
        last_only: bool = True,
    ) -> torch.Tensor:
        """Logits [rows, columns, vocabulary], of the last column only where the architecture can tell it apart."""
        extra = {"position_ids": positions, "logits_to_keep": 1 if last_only else 0}
        extra = {name: value for name, value in extra.items() if name in self._accepted}
        out = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
        logits: torch.Tensor = out.logits
        return logits


def _pad(rows: Sequence[Ids], width: int, device: torch.device, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, both [rows, width]; the mask is made of the lengths."""
    ids = torch.full((len(rows), width), FILLER)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        at = slice(width - len(row), width) if left else slice(0, len(row))
        ids[place, at], mask[place, at] = torch.tensor(row, dtype=torch.long), 1
    return ids.to(device), mask.to(device)


@contextmanager
def _inference(model: PreTrainedModel) -> Iterator[None]:
    """No gradients and no dropout inside; the model's mode as it was afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
