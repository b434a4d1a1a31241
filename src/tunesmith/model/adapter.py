"""LoRA by peft: put on, count, merge."""

from __future__ import annotations

from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import ModelError, did_you_mean
from tunesmith.model.load import quiet


def linear_names(model: PreTrainedModel) -> list[str]:
    """The names of the layers that LoRA may adapt: every matrix product but the output head."""
    head = model.get_output_embeddings()
    kinds = (nn.Linear, Conv1D)
    found = {name for name, part in model.named_modules() if isinstance(part, kinds) and part is not head}
    return sorted({name.rpartition(".")[2] for name in found})


def add_lora(
    model: PreTrainedModel,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: Literal["all-linear"] | list[str] = "all-linear",
) -> PeftModel:
    """Freeze `model` (changed in place) and put float32 LoRA weights on its linear layers, never on head or embeddings.

    Raises ModelError on a name that is no linear layer, with the names that there are.
    """
    known = linear_names(model)
    for name in target_modules if target_modules != "all-linear" else []:
        if name not in known:
            fix = did_you_mean(name, known)
            raise ModelError(
                f"target_modules: the model has no linear layer '{name}'", expected=", ".join(known), fix=fix
            )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=known if target_modules == "all-linear" else target_modules,
        # GPT-2 keeps its matrices transposed
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in model.modules()),
    )
    with quiet():
        return get_peft_model(model, config, autocast_adapter_dtype=True)


def trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, total) numbers; tied weights count once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


@torch.no_grad()
def merged(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter added in. Uses `model` up: its base is what comes back.

    Each matrix is summed in float32 and rounded to the base's format once (peft#1388: rounding twice is visible).
    """
    for part in model.modules():
        if isinstance(part, LoraLayer):
            weight: Any = part.get_base_layer().weight
            dtype = weight.dtype
            weight.data = weight.data.float()
            part.merge()
            weight.data = weight.data.to(dtype)
    return model.unload()
