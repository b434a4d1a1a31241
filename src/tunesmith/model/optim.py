"""Optimizers and schedules. Which parameter gets which is a table, not a class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

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


class MasterAdamW(torch.optim.Optimizer):
    """AdamW whose parameters may be a lower-precision copy: it holds float32 masters, and rounds them after each step.

    A bfloat16 weight does not move by less than 2**-9 of itself, which is most steps of fine-tuning. Moments, gradients
    and arithmetic are float32 (Micikevicius et al. 2018, Mixed precision training).
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0})
        held = [p for group in self.param_groups for p in group["params"]]
        self.masters = {p: p.detach() if p.dtype == torch.float64 else p.detach().float() for p in held}
        # what computes: the master itself, unless the parameter is of another format, or until `lower`
        self.copies = {p: m if m.dtype == p.dtype else p.detach() for p, m in self.masters.items()}

    def lower(self, dtype: torch.dtype) -> None:
        """Compute with copies in `dtype` from now on; gradients still add up in the masters' format."""
        for p, master in self.masters.items():
            self.copies[p] = master.to(dtype)
            p.data = self.copies[p]
            p.grad_dtype = master.dtype

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """The parameters are their masters inside, to be saved, exported or loaded; copies are made anew after."""
        for p, master in self.masters.items():
            p.data = master
        try:
            yield
        finally:
            for p, copy in self.copies.items():
                if copy is not self.masters[p]:
                    copy.copy_(self.masters[p])
                p.data = copy

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One parameter at a time: on a CPU it is still in the cache when it is rounded."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                master, state = self.masters[p], self.state[p]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32, device=master.device)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(master), torch.zeros_like(master)
                state["step"] += 1
                moments = [state["exp_avg"]], [state["exp_avg_sq"]]
                beta1, beta2 = group["betas"]
                torch._fused_adamw_(
                    [master],
                    [p.grad.to(master.dtype)],
                    *moments,
                    [],
                    [state["step"]],
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                )
                if self.copies[p] is not master:
                    self.copies[p].copy_(master)


def adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> MasterAdamW:
    """AdamW in two groups: matrices decay, vectors (norms, biases) do not."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return MasterAdamW([g for g in groups if g["params"]], lr)


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

    def lower(self, dtype: torch.dtype) -> None:
        """Compute in `dtype`, with float32 masters; for AdamW alone, which the other parts lack."""
        for part in self._mixed:
            part.lower(dtype)

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """The trained parameters in the precision that is optimised, for saving and loading."""
        with ExitStack() as stack:
            for part in self._mixed:
                stack.enter_context(part.full_precision())
            yield

    def raise_precision(self) -> None:
        """The trained parameters are their masters from now on."""
        for part in self._mixed:
            part.copies = dict(part.masters)
        with self.full_precision():
            pass

    @property
    def _mixed(self) -> list[MasterAdamW]:
        return [part for part in self.parts if isinstance(part, MasterAdamW)]
