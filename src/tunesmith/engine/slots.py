"""Keys and values of texts in slots, and attention over flat rows of their tokens.

A pass is one flat row: the tokens of new texts side by side, then one token for each text that goes on. Every product
of the model runs over all of them at once with no padding; only attention must know whose they are. So a text can
join while others are half-way, and a prefix that many share is computed once. The model is transformers' own: the
function below is registered with its attention interface, and `works_on` tries whether a model computes right with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from tunesmith.model import attention

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
Layer = tuple[Tensor, Tensor]


class Store:
    """Room for `slots` texts of `capacity` tokens. A layer's tensors are made when it first writes.

    Keys are [slots, heads, size, capacity], the way in which a step's product reads them fastest; values are
    [slots, heads, capacity, size].
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots, self.capacity = slots, capacity
        self.layers: dict[int, Layer] = {}

    def layer(self, index: int, k: Tensor, v: Tensor) -> Layer:
        """The tensors of a layer whose new keys and values look like k and v [1, heads, tokens, size]."""
        if index not in self.layers:
            keys = k.new_empty(self.slots, k.shape[1], k.shape[3], self.capacity)
            # zeros: what lies behind a text's end is multiplied by a weight of 0, which a NaN would survive
            self.layers[index] = keys.zero_(), v.new_zeros(self.slots, v.shape[1], self.capacity, v.shape[3])
        return self.layers[index]

    def put(self, index: int, slot: int, start: int, k: Tensor, v: Tensor) -> None:
        """Write k and v [1, heads, n, size] into a slot, from token `start` on."""
        keys, values = self.layer(index, k, v)
        keys[slot, :, :, start : start + k.shape[2]] = k[0].transpose(1, 2)
        values[slot, :, start : start + k.shape[2]] = v[0]

    def copy(self, source: int, target: int, tokens: int) -> None:
        for keys, values in self.layers.values():
            keys[target, :, :, :tokens] = keys[source, :, :, :tokens]
            values[target, :, :tokens] = values[source, :, :tokens]

    def resized(self, slots: int, capacity: int, used: int, tokens: int) -> Store:
        """Another store that holds the first `tokens` tokens of the first `used` slots."""
        made = Store(slots, capacity)
        for index, (keys, values) in self.layers.items():
            new = (
                keys.new_zeros(slots, *keys.shape[1:3], capacity),
                values.new_zeros(slots, values.shape[1], capacity, values.shape[3]),
            )
            new[0][:used, :, :, :tokens] = keys[:used, :, :, :tokens]
            new[1][:used, :, :tokens] = values[:used, :, :tokens]
            made.layers[index] = new
        return made


class Trunk:
    """A prefix of `length` tokens that many texts share, computed once; behind it is room for one text at a time."""

    def __init__(self, length: int, room: int) -> None:
        self.length, self.room = length, room
        self.layers: dict[int, Layer] = {}

    def keep(self, index: int, k: Tensor, v: Tensor) -> None:
        keys, values = (torch.cat([x, x.new_empty(1, x.shape[1], self.room, x.shape[3])], dim=2) for x in (k, v))
        self.layers[index] = keys, values

    def followed(self, index: int, k: Tensor, v: Tensor) -> Layer:
        """The prefix's keys and values, then k and v [1, heads, n, size]; good until the next call."""
        end = self.length + k.shape[2]
        keys, values = self.layers[index]
        keys[:, :, self.length : end], values[:, :, self.length : end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def start(self, index: int) -> Layer:
        keys, values = self.layers[index]
        return keys[:, :, : self.length], values[:, :, : self.length]


@dataclass
class Piece:
    """New tokens of one text, after its trunk. `seen` [n, n]: which of them each sees; None: those before it.

    `slot`: where they are kept, for a text that will go on. `becomes`: the trunk that they are to be.
    """

    ids: Sequence[int]
    positions: Sequence[int]
    trunk: Trunk | None = None
    slot: int | None = None
    seen: Tensor | None = None
    becomes: Trunk | None = None
    masks: dict[int, Tensor | None] = field(default_factory=dict)

    def mask(self, window: int, device: torch.device) -> Tensor | None:
        """bool [n, trunk + n]: which keys each token sees; None: plainly those before it, and there is no trunk."""
        if window not in self.masks:
            self.masks[window] = self._mask(window, device)
        return self.masks[window]

    def _mask(self, window: int, device: torch.device) -> Tensor | None:
        n, before = len(self.ids), self.trunk.length if self.trunk else 0
        near = before + n <= window
        if not before and self.seen is None and near:
            return None
        own = torch.ones(n, n, dtype=torch.bool, device=device).tril() if self.seen is None else self.seen.to(device)
        seen = torch.cat([own.new_ones(n, before), own], dim=1)
        if not near:
            at = torch.tensor(self.positions, device=device)
            seen = seen & (at[:, None] - torch.cat([torch.arange(before, device=device), at])[None, :] < window)
        return seen


class Pass:
    """One flat row: pieces, then one token for each of the first slots, which hold `lengths` tokens before it."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        newest: Sequence[int] = (),
        lengths: Sequence[int] = (),
        store: Store | None = None,
    ) -> None:
        self.pieces, self.newest, self.lengths, self.store = pieces, newest, lengths, store
        self.wheres: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    @cached_property
    def ids(self) -> list[int]:
        return [*(i for piece in self.pieces for i in piece.ids), *self.newest]

    @cached_property
    def positions(self) -> list[int]:
        return [*(at for piece in self.pieces for at in piece.positions), *self.lengths]

    @cached_property
    def ends(self) -> list[int]:
        """The last token of each piece, then all single ones: what is followed by something new."""
        ends, at = [], 0
        for piece in self.pieces:
            at += len(piece.ids)
            ends.append(at - 1)
        return [*ends, *range(at, at + len(self.newest))]

    def attend(self, index: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int) -> Tensor:
        """q, k, v [1, heads, tokens, size] of layer `index` -> [1, tokens, heads, size]."""
        parts, at = [], 0
        for piece in self.pieces:
            here = slice(at, at + len(piece.ids))
            parts.append(self._piece(piece, index, (q[:, :, here], k[:, :, here], v[:, :, here]), scale, window))
            at = here.stop
        if self.newest:
            parts.append(self._steps(index, q[0, :, at:], k[0, :, at:], v[0, :, at:], scale, window))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _piece(self, piece: Piece, index: int, qkv: tuple[Tensor, Tensor, Tensor], scale: float, window: int) -> Tensor:
        q, k, v = qkv
        if piece.becomes:
            piece.becomes.keep(index, k, v)
        if piece.slot is not None and self.store is not None:
            before = piece.trunk.length if piece.trunk else 0
            self.store.put(index, piece.slot, before, k, v)
            if piece.trunk:
                self.store.put(index, piece.slot, 0, *piece.trunk.start(index))
        if piece.trunk:
            k, v = piece.trunk.followed(index, k, v)
        mask = piece.mask(window, q.device)
        gqa = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale, enable_gqa=gqa)
        return out.transpose(1, 2)

    def _steps(self, index: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int) -> Tensor:
        """One query a slot, over all that the slot holds. q, k, v: [heads, rows, size]."""
        assert self.store is not None  # only texts in slots go on
        keys, values = self.store.layer(index, k.unsqueeze(0), v.unsqueeze(0))
        rows, heads = len(self.newest), keys.shape[1]
        row, at, bias = self._where(window, q.device)
        keys[row, :, :, at], values[row, :, at] = k.transpose(0, 1), v.transpose(0, 1)
        q = q.transpose(0, 1).reshape(rows, heads, -1, q.shape[2])
        scores = torch.add(bias, q @ keys[:rows], alpha=scale)
        out = scores.softmax(dim=-1).to(q.dtype) @ values[:rows]
        return out.reshape(1, rows, -1, values.shape[3])

    def _where(self, window: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Each newest token's slot, its place in that, and what to add to scores: 0 for what it sees, else -inf.

        The last is [rows, 1, 1, capacity].
        """
        if window not in self.wheres:
            assert self.store is not None
            last = torch.tensor(self.lengths, device=device)
            at = torch.arange(self.store.capacity, device=device)[None, :]
            hidden = (at > last[:, None]) | (at <= last[:, None] - window)
            bias = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, -torch.inf)
            self.wheres[window] = torch.arange(len(last), device=device), last, bias[:, None, None]
        return self.wheres[window]


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    for name in ("softcap", "s_aux", "position_bias"):
        if given.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
    scale = given.get("scaling") or query.shape[-1] ** -0.5
    window = given.get("sliding_window") or attention.NO_WINDOW
    return given["slots"].attend(module.layer_idx, query, key, value, scale, window), None


AttentionInterface.register("tunesmith_slots", _attend)
