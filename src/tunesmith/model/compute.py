"""How a training computes: packed or padded, compiled or not, in copies of which format. Speed, never the result.

Each choice is made from what the model, the machine and the length of the run are, and says its reason.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tunesmith.core.errors import UsageError
from tunesmith.model import attention, head, load
from tunesmith.model.device import autocast, give_back_freed
from tunesmith.model.optim import Optimizers

Choice = Literal["auto", "on", "off"]
COMPILE_SECONDS = 60.0  # a block, its attention and the loss from an empty cache on two cores; 15 from a full one
COMPILE_GAIN = 0.35  # of the time of a step; bench/train.py measures both
_SLOW = 1e11  # FLOP/s; a slower machine would not be used
_EAGER_SHARE = 0.3  # of the matrix-product peak that an uncompiled step reaches on a CPU


@dataclass(frozen=True)
class Computing:
    """A model's ways to compute, and why. `packed` is the attention of packed rows, or None for padded ones.

    `copies` is the format of the weights that compute, or None where they compute as they are (under `autocast`).
    """

    model: PreTrainedModel  # the base where there is an adapter on it
    device: torch.device
    dtype: torch.dtype
    packed: attention.Kind | None
    compiled: bool
    copies: torch.dtype | None
    plain_head: bool
    checkpointed: bool = False  # the activations within a layer are made again in the backward pass
    limit_gb: float | None = None  # where more is held after a micro-batch, what is free within it is given back

    @property
    def facts(self) -> dict[str, Any]:
        """For the receipt."""
        copies = str(self.copies).removeprefix("torch.") if self.copies else None
        return {
            "attention": self.packed or "padded",
            "compiled": self.compiled,
            "weights": copies or "as stored",
            "checkpointed": self.checkpointed,
        }

    def begin(self, model: nn.Module, optimizers: Optimizers) -> None:
        """Put the weights of `model` (adapter and all) into the format that computes, and mark what is compiled."""
        if self.copies:
            optimizers.lower(self.copies)
            for p in model.parameters():
                if not p.requires_grad:
                    p.data = p.data.to(self.copies)
        if self.checkpointed:
            checkpoint(self.model)
        if self.compiled:  # the repeated layers share one graph; nothing is compiled before the first call
            for block in blocks_of(model):
                block.compile(dynamic=True, fullgraph=True)

    def end(self, model: nn.Module, base: Path) -> None:
        """Give frozen weights their stored numbers back, after `begin` rounded them."""
        frozen = {name: p for name, p in self.model.named_parameters() if not p.requires_grad}
        stored = load.stored_dtype(base)
        if not self.copies or not frozen or stored == self.copies:
            return
        fresh = dict(load.load_model(base, stored).named_parameters())
        for name, p in frozen.items():
            p.data = fresh[name.replace(".base_layer.", ".")].data

    @contextmanager
    def training(self) -> Iterator[None]:
        """Forward and backward passes of the loop."""
        with self._attending(self.packed):
            yield
        if self.limit_gb is not None:
            give_back_freed(self.device, self.limit_gb)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """The same batches without gradients; not compiled, because a second graph would cost more than it saves."""
        kind: attention.Kind | None = "documents" if self.packed == "bucketed" else self.packed
        with torch.compiler.set_stance("force_eager"), self._attending(kind):
            yield

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Generation, with a cache, as anybody else would call the model."""
        with torch.compiler.set_stance("force_eager"):
            yield

    def nll(self, ids: Tensor, lengths: list[int], at: Tensor, targets: Tensor) -> Tensor:
        """Summed negative log-likelihood of `targets` (N,) at positions `at` (N,) of a packed row `ids` (1, T)."""
        where = attention.positions(lengths, ids.device), attention.documents(lengths, ids.device)
        return self.nll_at(ids, where, at, targets, head.compiled_nll() if self.compiled else head.nll_and_gradient)

    def nll_at(
        self,
        ids: Tensor,
        where: tuple[Tensor, attention.Documents],
        at: Tensor,
        targets: Tensor,
        loss: head.Loss,
    ) -> Tensor:
        """`nll` of a row whose positions and documents are described already; `loss` of a chunk of logits."""
        positions, documents = where
        given = {"input_ids": ids, "position_ids": positions, "documents": documents, "use_cache": False}
        if self.plain_head:
            hidden = head.decoder_of(self.model)(**given).last_hidden_state[0].index_select(0, at)
            weight = self.model.get_output_embeddings().weight
            return head.summed_nll(hidden, weight, targets, loss)
        logits = self.model(**given).logits[0].index_select(0, at)
        return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    @contextmanager
    def _attending(self, kind: attention.Kind | None) -> Iterator[None]:
        with ExitStack() as stack:
            if kind:
                stack.enter_context(attention.using(self.model, kind))
            yield

    def format(self) -> AbstractContextManager[None]:
        """Forward passes alone: autocast chooses for the backward pass by itself."""
        return nullcontext() if self.copies else autocast(self.dtype, self.device)


def checkpoint(model: PreTrainedModel) -> None:
    """Keep the inputs of each repeated layer only; the rest is made again when the backward pass needs it."""
    name = "activation_checkpointing_enable"  # since transformers 5.2x, which deprecates the older name
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated layers, which are compiled one for all."""
    return [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]


def pick_compile(asked: Choice, device: torch.device, flops: float, peak: Callable[[], float]) -> tuple[bool, str]:
    """Whether to compile, and why, for a run of so many useful operations; `peak` measures matrix products (FLOP/s).

    Raises UsageError where it is asked for and cannot be done.
    """
    missing = _missing(device)
    if asked == "on" and missing:
        raise UsageError(f'compile = "on": {missing}', fix='compile = "off", or install it')
    if asked != "auto" or missing:
        return asked == "on", missing or f"{asked}, as asked"
    if flops < COMPILE_SECONDS * _SLOW:
        return False, "the run is short"
    saved = COMPILE_GAIN * flops / (_EAGER_SHARE * peak())
    if saved < 2 * COMPILE_SECONDS:
        return False, f"about {saved:,.0f} s would be saved, and compiling costs up to {COMPILE_SECONDS:.0f} s"
    return True, f"about {saved:,.0f} s are saved for up to {COMPILE_SECONDS:.0f} s of compiling"


def _missing(device: torch.device) -> str:
    """What torch.compile lacks here, or ''."""
    if device.type == "cuda":
        import importlib.util

        return "" if importlib.util.find_spec("triton") else "triton is not installed"
    return "" if any(map(shutil.which, ("g++", "clang++", "c++"))) else "there is no C++ compiler (g++)"


@torch.no_grad()
def pick_packing(model: PreTrainedModel, device: torch.device) -> tuple[attention.Kind | None, bool, str]:
    """The attention of packed rows, whether the head is one plain product, and why. Told by trying it.

    Two short documents are computed alone and in one packed row. A model that mixes neighbours (convolution, recurrent
    state), or that hides its attention from transformers' interface, gives other numbers, and is padded.
    """
    kind: attention.Kind = "varlen" if device.type == "cuda" and _has_varlen() else "documents"
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.arange(3, 22, device=device).remainder(vocabulary).unsqueeze(0)
    lengths = [8, 11]
    training = model.training
    model.eval()
    alone = torch.cat([model(part, use_cache=False).logits for part in ids.split(lengths, 1)], 1)  # a broken one fails
    try:
        with attention.using(model, kind):
            given = {"position_ids": attention.positions(lengths, device), "use_cache": False}
            where = attention.documents(lengths, device)
            hidden = head.decoder_of(model)(ids, documents=where, **given).last_hidden_state
            logits = model(ids, documents=where, **given).logits
    except attention.STRANGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        return None, False, f"padded: this model takes no packed rows ({reason})"
    finally:
        model.train(training)
    tolerance = 1e-3 if alone.dtype == torch.float32 else 0.1  # of the logits' spread; a leak is of its order
    if not float((logits - alone).abs().max()) <= tolerance * float(alone.std()):
        return None, False, "padded: in a packed row this model's documents change each other"
    return kind, head.is_plain(model, hidden, logits), "packed: no padding, and no document sees another (tried on two)"


def _has_varlen() -> bool:
    import importlib.util

    return importlib.util.find_spec("torch.nn.attention.varlen") is not None
