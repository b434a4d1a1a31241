"""A model that runs over flat rows of tokens (see slots.py): texts to go on with, scores of continuations, vectors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith.engine import prefixes
from tunesmith.engine.mixed import RowAdapter
from tunesmith.engine.prefixes import Family, Ids, Text
from tunesmith.engine.slots import KNOWN_LAYERS, Pass, Piece, Store, Trunk
from tunesmith.model import attention
from tunesmith.model.head import decoder_of

GRID = 64  # tokens; a store's capacity is a multiple: wide enough to be seldom made again, and little is empty
SLACK = 2 * GRID  # empty tokens of a slot from which a smaller store is made
PASS_TOKENS = 2048  # of one pass: from some hundred on the products are as fast as they get
TRUNK_TOKENS = 16384  # of prefixes that are kept at once
LOGIT_VALUES = 1 << 27  # the most float32 logits of one pass: 0.5 GB, whatever the vocabulary
SAME = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the logits' spread; a text that is read wrong is 1 off
SAME_ROUNDED = 0.1  # of 16 bits: 30 layers of random weights come to 0.04, with any attention


class FlatRunner:
    """Call everything inside `using`. Texts are numbered by their slots, from 0 and without gaps."""

    joins = True  # texts may begin while others are half-way

    def __init__(self, model: PreTrainedModel, adapter: RowAdapter | None = None) -> None:
        self.model, self.adapter = model, adapter
        self.inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.device = model.device
        self.asked = LOGIT_VALUES // self.inner.config.get_text_config().vocab_size
        self.store, self.texts, self.lengths = Store(0, 0), list[Text](), list[int]()
        self.trunks: dict[bool, Trunk] = {}

    def using(self) -> Any:
        return attention.using(self.inner, "slots")

    # texts that go on

    def begin(self, texts: Sequence[Text]) -> None:
        """What will come, all of it: the prefix that all texts of a model share is computed now."""
        self.store, self.texts, self.lengths, self.trunks = Store(0, 0), [], [], {}
        for adapted in (False, True):
            ids = list({text.ids for text in texts if text.adapted == adapted})
            if length := prefixes.shared_by_all(ids):
                self.trunks[adapted] = self._trunk(Text(ids[0], adapted), length, max(map(len, ids)) - length)

    def advance(self, fresh: Sequence[Text], newest: Sequence[int]) -> Tensor:
        """Give each text in a slot its newest token, and put the fresh ones into the slots behind them.

        Logits [slots, vocabulary] of what follows each. Equal fresh texts are computed once.
        """
        old = len(self.texts)
        self._make_room(fresh)
        slots: dict[Text, int] = {}
        for slot, text in enumerate(fresh, start=old):
            slots.setdefault(text, slot)
        pieces = [self._begun(text, slot) for text, slot in slots.items()]
        found = self._logits(Pass(pieces, newest, self.lengths, self.store), [text.adapted for text in slots])
        for slot, text in enumerate(fresh, start=old):
            if slot != slots[text]:
                self.store.copy(slots[text], slot, len(text.ids))
        places = {text: place for place, text in enumerate(slots)}
        order = [*range(len(slots), len(slots) + old), *(places[text] for text in fresh)]
        self.lengths = [*(n + 1 for n in self.lengths), *(len(text.ids) for text in fresh)]
        self.texts += fresh
        return found if order == list(range(len(order))) else found[order]

    def keep(self, order: Sequence[int]) -> None:
        """Go on with these texts only: slot i is now `order[i]`, which is i or lies behind all that are kept."""
        for slot, source in enumerate(order):
            if slot != source:
                self.store.copy(source, slot, self.lengths[source])
        self.lengths, self.texts = [self.lengths[i] for i in order], [self.texts[i] for i in order]

    def _begun(self, text: Text, slot: int) -> Piece:
        trunk = self.trunks.get(text.adapted)
        start = trunk.length if trunk else 0
        return Piece(text.ids[start:], range(start, len(text.ids)), trunk, slot)

    def _make_room(self, fresh: Sequence[Text]) -> None:
        used, slots = len(self.lengths), len(self.lengths) + len(fresh)
        longest = max([*(n + 1 for n in self.lengths), *(len(text.ids) for text in fresh)])
        capacity, have = -(-longest // GRID) * GRID, self.store
        if slots > have.slots or capacity > have.capacity or have.capacity - capacity >= SLACK:
            self.store = have.resized(slots, capacity, used, max(self.lengths, default=0))

    # scores and vectors

    def score(self, requests: Sequence[tuple[Text, Ids]]) -> list[list[float]]:
        """The log-probability of each continuation token; shared prefixes and equal prompts are computed once."""
        scores: list[list[float]] = [[] for _ in requests]
        groups = prefixes.groups(prefixes.families(requests, PASS_TOKENS))
        for wave in prefixes.waves(groups, TRUNK_TOKENS):
            trunks = [self._trunk(one.families[0].prompt, one.prefix, one.room) if one.prefix else None for one in wave]
            for pack in prefixes.packs(wave, PASS_TOKENS, self.asked):
                self._score([(family, trunks[number]) for family, number in pack], scores)
        return scores

    def _score(self, pack: Sequence[tuple[Family, Trunk | None]], scores: list[list[float]]) -> None:
        pieces, where, at = [], list[tuple[int, Ids, list[int]]](), 0
        for family, trunk in pack:
            piece, places = _tree(family, trunk)
            each = zip(family.ends, places, strict=True)
            where += [(number, end, [at + i for i in mine]) for (number, end), mine in each]
            pieces.append(piece)
            at += len(piece.ids)
        rows = sorted({i for _, _, places in where for i in places})
        row_of = {place: row for row, place in enumerate(rows)}
        logits = self._logits(Pass(pieces), [family.prompt.adapted for family, _ in pack], rows).float()
        picked = torch.tensor(
            [[row_of[i], token] for _, end, places in where for i, token in zip(places, end, strict=True)]
        )
        row, token = picked.to(self.device).unbind(1)
        found = iter((logits[row, token] - logits.logsumexp(dim=-1)[row]).tolist())
        for number, end, _ in where:
            scores[number] = [next(found) for _ in end]

    def embed(self, texts: Sequence[Text]) -> Tensor:
        """float32 [texts, hidden size]: the mean of a text's last hidden states."""
        vectors, start = list[Tensor](), 0
        while start < len(texts):
            end = start + 1
            while end < len(texts) and sum(len(text.ids) for text in texts[start : end + 1]) <= PASS_TOKENS:
                end += 1
            some = Pass([Piece(text.ids, range(len(text.ids))) for text in texts[start:end]])
            states = self._run(decoder_of(self.inner), some, [text.adapted for text in texts[start:end]])
            parts = states.last_hidden_state[0].float().split([len(text.ids) for text in texts[start:end]])
            vectors += [part.mean(dim=0) for part in parts]
            start = end
        return torch.stack(vectors)

    # one pass

    def _trunk(self, text: Text, length: int, room: int) -> Trunk:
        """The first `length` tokens of a text, computed."""
        trunk = Trunk(length, room)
        piece = Piece(text.ids[:length], range(length), becomes=trunk)
        self._run(decoder_of(self.inner), Pass([piece]), [text.adapted])
        return trunk

    def _logits(self, given: Pass, adapted: Sequence[bool], rows: Sequence[int] | None = None) -> Tensor:
        """[rows, vocabulary] after the tokens at `rows` of the flat row; None: after each text's last."""
        keep = torch.tensor(given.ends if rows is None else rows, device=self.device)
        logits: Tensor = self._run(self.model, given, adapted, logits_to_keep=keep).logits[0]
        return logits

    def _run(self, module: Any, given: Pass, adapted: Sequence[bool], **more: Any) -> Any:
        """`adapted`: of the pieces; the texts in slots are known."""
        if self.adapter is not None:
            flags = [flag for piece, flag in zip(given.pieces, adapted, strict=True) for _ in piece.ids]
            flags += [text.adapted for text in self.texts[: len(given.newest)]]
            on = torch.tensor(flags, device=self.device)
            self.adapter.rows = None if all(flags) else on[None, :, None]
        ids, positions = (torch.tensor([x], device=self.device) for x in (given.ids, given.positions))
        return module(input_ids=ids, position_ids=positions, use_cache=False, slots=given, **more)


def _tree(family: Family, trunk: Trunk | None) -> tuple[Piece, list[list[int]]]:
    """A prompt (after its trunk) with all of its continuations behind it, none of which sees another.

    With it, for each continuation the tokens after which its own are looked up.
    """
    start, length = trunk.length if trunk else 0, len(family.prompt.ids)
    ids, positions = [*family.prompt.ids[start:]], [*range(start, length)]
    own, places, spans = len(ids), list[list[int]](), list[tuple[int, int]]()
    for _, end in family.ends:
        first = len(ids)
        ids += end[:-1]
        positions += range(length, length + len(end) - 1)
        spans.append((first, len(ids)))
        places.append([own - 1, *range(first, len(ids))])
    seen = None
    if sum(last > first for first, last in spans) > 1:
        seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril_()
        for first, last in spans:
            seen[last:, first:last] = False
    return Piece(ids, positions, trunk, seen=seen), places


@torch.no_grad()
def works_on(model: PreTrainedModel) -> bool:
    """Whether flat rows give this model's own logits, tried on two texts: at their ends, and a token later.

    A model that mixes neighbours (convolution, recurrent state) or hides its attention from transformers' interface
    gives others, or none.
    """
    runner = FlatRunner(model)
    kinds = set(getattr(runner.inner.config.get_text_config(), "layer_types", None) or ())
    if not kinds <= KNOWN_LAYERS:
        return False
    vocabulary = runner.inner.get_input_embeddings().num_embeddings
    ids = [i % vocabulary for i in range(3, 24)]
    texts, later = [Text(tuple(ids[:8])), Text(tuple(ids[8:20]))], ids[-2:]
    whole = [[*text.ids, new] for text, new in zip(texts, later, strict=True)]
    with suppress(*attention.STRANGE):
        plain = torch.cat(
            [model(torch.tensor([x], device=model.device), use_cache=False).logits[0, -2:] for x in whole]
        )
        with runner.using():
            runner.begin(texts)
            found = torch.cat([runner.advance(texts, []), runner.advance([], later)])[[0, 2, 1, 3]]
        off = float((found - plain).float().square().mean().sqrt() / plain.float().std())
        return off <= SAME.get(plain.dtype, SAME_ROUNDED)
    return False
