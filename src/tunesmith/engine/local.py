"""The local engine: a `transformers` model that answers many requests at once.

What a request gives does not depend on its batch-mates. The longest begin first; where one ends, the next takes its
place while the others go on. How a batch is computed is a runner's matter: flat.py, or padded.py where that does not
suit the model.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from transformers import PreTrainedModel

from tunesmith.core.errors import ModelError
from tunesmith.engine import flat, padded
from tunesmith.engine.base import Generation, Sampling, Score
from tunesmith.engine.mixed import RowAdapter
from tunesmith.engine.prefixes import Ids, Text
from tunesmith.engine.sampling import answer_start, first_stop, next_ids, stop_window
from tunesmith.model.load import context_length

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Which = bool | Sequence[bool]  # with the adapter or without: one for all, or one a request


class Decoder(Protocol):
    """What the engine needs of a tokenizer."""

    @property
    def eos_id(self) -> int: ...

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str: ...


@dataclass
class _Row:
    """A request on its way. `limit`: the new tokens that it may have, within the context."""

    index: int
    text: Text
    sampling: Sampling
    limit: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.sampling.seed)
        self.window = stop_window(self.sampling.stop)

    @property
    def need(self) -> int:
        """The most tokens that it will hold."""
        return len(self.text.ids) + self.limit


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
        if "past_key_values" not in inspect.signature(inner.forward).parameters:
            raise ModelError(f"{type(inner).__name__} keeps no keys and values", expected="a transformer decoder")

    @property
    def has_base(self) -> bool:
        """Whether there is an adapter, and one that can be taken off: PEFT leaves trained biases where they are."""
        return hasattr(self.model, "disable_adapter") and self.model.active_peft_config.bias == "none"

    @property
    def base(self) -> BaseEngine:
        """What lies below the adapter, as an engine over the same weights."""
        return BaseEngine(self)

    def generate(
        self, prompts: Sequence[Ids], sampling: Sampling | Sequence[Sampling], *, adapted: Which = True
    ) -> list[Generation]:
        """One generation a prompt, in order; `ids` without the stop token, `text` without special tokens and without
        an empty thought. `adapted`: whether a prompt goes to the model with its adapter, or to the base below.

        Where prompt and max_new_tokens exceed the context, the limit is what fits. Raises ModelError, with the index
        of the prompt, where nothing fits.
        """
        samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
        rows = []
        for index, (text, wish) in enumerate(zip(self._texts(prompts, adapted), samplings, strict=True)):
            self._check_prompt(index, len(text.ids), needed=len(text.ids) + 1)
            rows.append(_Row(index, text, wish, min(wish.max_new_tokens, self.context - len(text.ids))))
        done = {row.index: self._finish(row, "length") for row in rows if row.limit < 1}
        waiting = deque(sorted((row for row in rows if row.limit > 0), key=lambda row: row.need, reverse=True))
        with self._running([row.text for row in waiting]) as runner:
            done |= {row.index: result for row, result in self._generate(runner, waiting)}
        return [done[index] for index in range(len(prompts))]

    def generate_both(
        self, prompts: Sequence[Ids], sampling: Sampling | Sequence[Sampling]
    ) -> tuple[list[Generation], list[Generation]]:
        """(the base's, the adapted model's) generations, in one pass where the adapter can be switched by row."""
        samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
        if not RowAdapter.suits(self.model):
            return self.generate(prompts, samplings, adapted=False), self.generate(prompts, samplings)
        flags = [False] * len(prompts) + [True] * len(prompts)
        found = self.generate([*prompts, *prompts], [*samplings, *samplings], adapted=flags)
        return found[: len(prompts)], found[len(prompts) :]

    def score(self, requests: Sequence[tuple[Ids, Ids]], *, adapted: Which = True) -> list[Score]:
        """The log-probability of each continuation token. What prompts share is computed once.

        Raises ModelError, with the index of the request, on an empty prompt or one that exceeds the context.
        """
        for index, (prompt, end) in enumerate(requests):
            self._check_prompt(index, len(prompt), needed=len(prompt) + len(end) - 1)
        texts = self._texts([prompt for prompt, _ in requests], adapted)
        with self._running(texts) as runner:
            found = runner.score([(text, end) for text, (_, end) in zip(texts, requests, strict=True)])
        scores = [Score(tuple(one)) for one in found]
        if not torch.tensor([score.total for score in scores]).isfinite().all():
            raise ModelError("the model's log-probabilities are not finite: it has diverged")
        return scores

    def embed(self, texts: Sequence[Ids], *, adapted: Which = True) -> npt.NDArray[np.float32]:
        """[texts, hidden size]: the mean of a text's last hidden states, its length made 1.

        Raises ModelError, with the index of the text, on an empty one or one that exceeds the context.
        """
        for index, ids in enumerate(texts):
            self._check_prompt(index, len(ids), needed=len(ids))
        every = self._texts(texts, adapted)
        if not every:
            return torch.zeros(0, self.model.config.get_text_config().hidden_size).numpy()
        with self._running(every) as runner:
            return torch.nn.functional.normalize(runner.embed(every), dim=1).cpu().numpy()

    def _texts(self, prompts: Sequence[Ids], adapted: Which) -> list[Text]:
        flags = [adapted] * len(prompts) if isinstance(adapted, bool) else adapted
        if not all(flags) and not self.has_base:
            raise ModelError("the model has no adapter that can be taken off, so there is no base below it")
        return [Text(tuple(ids), flag) for ids, flag in zip(prompts, flags, strict=True)]

    def _check_prompt(self, index: int, length: int, needed: int) -> None:
        if not length:
            raise ModelError(f"prompt {index} is empty", expected="at least one token")
        if needed > self.context:
            what = f"prompt {index} does not fit: {needed:,} tokens with its continuation"
            raise ModelError(what, expected=f"at most {self.context:,}, the context of the model", fix="shorten it")

    @cached_property
    def _flat(self) -> bool:
        return flat.works_on(self.model)

    @contextmanager
    def _running(self, texts: Sequence[Text]) -> Iterator[flat.FlatRunner | padded.PaddedRunner]:
        """What computes these texts: no gradients and no dropout inside; the model as it was afterwards."""
        with _inference(self.model):
            kinds = {text.adapted for text in texts}
            adapter = RowAdapter(self.model) if len(kinds) == 2 else None
            runner = (flat.FlatRunner if self._flat else padded.PaddedRunner)(self.model, adapter)
            by_row = adapter.by_row() if adapter else nullcontext()
            with runner.using(), by_row, self.model.disable_adapter() if kinds == {False} else nullcontext():
                yield runner

    def _generate(
        self, runner: flat.FlatRunner | padded.PaddedRunner, waiting: deque[_Row]
    ) -> Iterator[tuple[_Row, Generation]]:
        rows: list[_Row] = []
        runner.begin([row.text for row in waiting])
        while rows or waiting:
            fresh = self._admit(rows, waiting) if runner.joins or not rows else []
            logits = runner.advance([row.text for row in fresh], [row.ids[-1] for row in rows])
            rows += fresh
            ended = dict(self._advance(rows, logits))
            yield from ((rows[place], result) for place, result in ended.items())
            order = _packed([place for place in range(len(rows)) if place not in ended])
            if ended:
                runner.keep(order)
                rows = [rows[place] for place in order]

    def _admit(self, rows: Sequence[_Row], waiting: deque[_Row]) -> list[_Row]:
        """The next that fit beside those on their way, no more than one pass may hold; one always goes."""
        fresh: list[_Row] = []
        longest = max((row.need for row in rows), default=0)
        while waiting:
            longest, count = max(longest, waiting[0].need), len(rows) + len(fresh) + 1
            if count > 1 and (count > self.batch_rows or count * longest > self.batch_tokens):
                break
            if fresh and sum(len(row.text.ids) for row in fresh) + len(waiting[0].text.ids) > flat.PASS_TOKENS:
                break
            fresh.append(waiting.popleft())
        return fresh

    def _advance(self, rows: Sequence[_Row], logits: torch.Tensor) -> Iterator[tuple[int, Generation]]:
        """Give each row its new token; (place, result) of those that it ends."""
        draws = [row.random.random() for row in rows]
        new = next_ids(logits, [row.sampling for row in rows], draws)
        asked = [place for place, row in enumerate(rows) if row.sampling.logprobs]
        if asked:
            found = logits[asked].float().log_softmax(dim=-1)[range(len(asked)), [new[place] for place in asked]]
            for place, value in zip(asked, found.tolist(), strict=True):
                rows[place].logprobs.append(value)
        for place, row in enumerate(rows):
            if (ended := self._end(row, new[place])) is not None:
                yield place, ended

    def _end(self, row: _Row, new: int) -> Generation | None:
        """The result of a row where its new token ends it."""
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
        logprobs = tuple(row.logprobs[: len(ids)]) if row.sampling.logprobs else None
        return Generation(text[answer_start(text) :], tuple(ids), finish, logprobs)


class BaseEngine:
    """`engine.base.Engine` over what lies below an engine's adapter."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine, self.context = engine, engine.context

    def generate(self, prompts: Sequence[Ids], sampling: Sampling | Sequence[Sampling]) -> list[Generation]:
        return self.engine.generate(prompts, sampling, adapted=False)

    def score(self, requests: Sequence[tuple[Ids, Ids]]) -> list[Score]:
        return self.engine.score(requests, adapted=False)

    def embed(self, texts: Sequence[Ids]) -> npt.NDArray[np.float32]:
        return self.engine.embed(texts, adapted=False)


def _packed(going: Sequence[int]) -> list[int]:
    """An order without gaps that moves the fewest: the last ones into the places that became free."""
    order, last = list(range(len(going))), [place for place in going if place >= len(going)]
    for place in sorted(set(order) - set(going)):
        order[place] = last.pop()
    return order


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
