"""Weights kept as inference reads them fastest: in oneDNN's own layout, or rounded to 8 bits. For CPUs.

Both put modules of their own in the place of the linear layers: such a model is asked, never trained or saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import ModelError

FEW = (
    16  # rows up to which 8-bit weights are read as they are; above, widening them first is faster (bench/generate.py)
)
MOST_KL = 0.02  # nats a token; weights that were rounded this badly are another model
PACKED_ROWS = 32  # the layout is chosen for products of so many rows, and does for all


class Packed(nn.Module):
    """A bfloat16 linear layer whose weight lies in oneDNN's blocks: plain weights are put in order at every product."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = bias
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return found


class Int8(nn.Module):
    """A linear layer of 8-bit weights, a scale an output channel: w = scale x integer."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127
        self.bias = bias
        self.weight = (weight.float() / scale[:, None]).round().to(torch.int8)
        self.scale = scale.to(weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) <= FEW and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            found: Tensor = torch._weight_int8pack_mm(rows.contiguous(), self.weight, self.scale)
            found = found if self.bias is None else found + self.bias
            return found.reshape(*x.shape[:-1], -1)
        return F.linear(x, self.weight.to(x.dtype) * self.scale[:, None], self.bias)


@dataclass(frozen=True)
class Quality:
    """What rounding changed, over `tokens` predictions: mean divergence (nats), and how often the likeliest token is
    the same."""

    tokens: int
    kl: float
    same_top: float

    def __str__(self) -> str:
        return (
            f"KL {self.kl:.5f} nats a token, the likeliest token is the same for {self.same_top:.1%} of {self.tokens}"
        )


def pack(model: PreTrainedModel) -> bool:
    """Keep bfloat16 weights on a CPU in oneDNN's layout: the same numbers, read faster. False where it is of no use."""
    able = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or not able:
        return False
    _swap(model, Packed)
    return True


@torch.inference_mode()
def round_to_int8(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Quality:
    """Round the weights of all linear layers to 8 bits, and measure on a few prompts what that changed.

    Raises ModelError where it is more than MOST_KL; the model is then of no use.
    """
    before = [_predicted(model, ids) for ids in prompts]
    _swap(model, Int8)
    after = [_predicted(model, ids) for ids in prompts]
    kl = torch.cat([(old.exp() * (old - new)).sum(dim=-1) for old, new in zip(before, after, strict=True)])
    same = torch.cat([old.argmax(dim=-1) == new.argmax(dim=-1) for old, new in zip(before, after, strict=True)])
    quality = Quality(len(kl), float(kl.mean()), float(same.float().mean()))
    if not quality.kl <= MOST_KL:  # not a number is refused
        raise ModelError(f"8-bit weights change this model too much: {quality}", fix="leave its weights as they are")
    return quality


def _predicted(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """Log-probabilities [tokens, vocabulary]."""
    given = torch.tensor([ids], device=model.device)
    return model(input_ids=given, use_cache=False).logits[0].float().log_softmax(dim=-1)


def _swap(model: PreTrainedModel, kind: Callable[[Tensor, Tensor | None], nn.Module]) -> None:
    """Put `kind` in the place of every linear layer but an adapter's."""
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.Linear | Conv1D) and "lora_" not in name:
            weight = part.weight.T.contiguous() if isinstance(part, Conv1D) else part.weight
            bias = None if part.bias is None else part.bias.detach()
            model.set_submodule(name, kind(weight.detach(), bias))
