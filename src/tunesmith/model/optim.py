"""Optimizers and schedules. Which parameter gets which is a table, not a class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from tunesmith.core.errors import UsageError

_DECAY_SHARE = 0.2  # of a WSD schedule: the last fifth goes down (Hu et al. 2024, MiniCPM, use 10 to 20 %)


def lr_factor(schedule: str, step: int, total: int, warmup: int) -> float:
    """What the learning rate is multiplied by at `step` of `total` (0-based): warm-up to 1, then the schedule."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)  # 0 up to just below 1
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "linear":
        return 1 - done
    if schedule == "wsd":
        return min(1.0, (1 - done) / _DECAY_SHARE)
    if schedule == "constant":
        return 1.0
    raise UsageError(f"unknown lr_schedule '{schedule}'", expected="cosine, linear, constant or wsd")


def adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW in two groups: matrices decay, vectors (norms, biases) do not."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.95), eps=1e-8, fused=True)


def muon_adamw(
    model: nn.Module, muon_lr: float, adam_lr: float, weight_decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """Muon on the matrices inside the blocks, AdamW on embeddings, head and vectors (Jordan et al. 2024)."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    output = getattr(model, "get_output_embeddings", None)
    head = output() if callable(output) else None
    apart = embeddings | ({id(p) for p in head.parameters()} if isinstance(head, nn.Module) else set())
    inner = [p for p in model.parameters() if p.requires_grad and p.ndim == 2 and id(p) not in apart]
    chosen = {id(p) for p in inner}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    muon = [torch.optim.Muon(inner, lr=muon_lr, weight_decay=weight_decay)] if inner else []
    return [*muon, *([adamw(rest, adam_lr, weight_decay)] if rest else [])]  # LoRA has matrices only


class Optimizers:
    """One or more optimizers that step together, each group scaled from its own base learning rate."""

    def __init__(self, parts: list[torch.optim.Optimizer], factor: Callable[[int], float]) -> None:
        self.parts, self.factor = parts, factor
        self._base = [[group["lr"] for group in part.param_groups] for part in parts]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for part in self.parts for group in part.param_groups for p in group["params"]]

    def step(self, step: int, scale: float = 1.0) -> float:
        """Update every parameter with the learning rate of `step`, times `scale` where the loop has lowered it; clear
        the gradients. Returns the first rate."""
        factor = scale * self.factor(step)
        for part, base in zip(self.parts, self._base, strict=True):
            for group, lr in zip(part.param_groups, base, strict=True):
                group["lr"] = lr * factor
            part.step()
        self.clear()
        return float(self._base[0][0] * factor)

    def clear(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The whole state as named tensors ("part.parameter.name"), for a safetensors file."""
        out: dict[str, torch.Tensor] = {}
        for n, part in enumerate(self.parts):
            for index, state in part.state_dict()["state"].items():
                out |= {f"{n}.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        return out

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for n, part in enumerate(self.parts):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in tensors.items():
                at, index, name = key.split(".", 2)
                if int(at) == n:
                    state.setdefault(int(index), {})[name] = value
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
