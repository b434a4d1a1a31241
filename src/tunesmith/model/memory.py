"""How much memory a training will hold at its peak, told by a dry run: the real model, loss and optimizer on tensors
that have a shape and a format and no numbers.

Nothing is looked up by family and nothing is estimated by formula: every tensor that would be alive is counted while
it is. Two dry runs, of one repeated layer and of two, tell what every further one adds.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from tunesmith.model import attention
from tunesmith.model.compute import Computing, blocks_of
from tunesmith.model.device import KERNELS
from tunesmith.model.head import Loss, nll_and_gradient
from tunesmith.model.optim import Optimizers

GB = 1e9
FIRST_USE = 110e6  # bytes of a CPU process: code and tables that kernels touch when first used; bench/memory.py
KERNEL = 1e6  # bytes in both stores of one for a shape of bfloat16 products; bench/memory.py
COMPILER = 100e6  # bytes: what torch.compile leaves in the process
FRAGMENTS = 0.1  # of what is alive: freed blocks that the allocator cannot give out again or return


@dataclass(frozen=True)
class Micro:
    """The micro-batch that takes most: tokens of its rows, how many are trained, whether a step has another, and
    whether others have another shape."""

    lengths: Sequence[int]
    trained: int
    several: bool = False
    varied: bool = False


@dataclass(frozen=True)
class Job:
    """What is trained, as far as memory goes. `stored` is the format that the base is loaded in, `adapt` puts an
    adapter on it, or nothing."""

    base: PretrainedConfig
    stored: torch.dtype
    adapt: Callable[[PreTrainedModel], nn.Module]
    optimizers: Callable[[nn.Module], Optimizers]
    computing: Computing
    micro: Micro


@dataclass(frozen=True)
class Parts:
    """Bytes at the peak by what they are. `working` is what lives for a moment: logits, gradients of activations."""

    weights: int
    masters: int
    moments: int
    gradients: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def taken_gb(alive: int, computing: Computing, varied: bool = False) -> float:
    """What the device's memory must hold where so many bytes are alive (GB of 1e9 bytes)."""
    compiler = COMPILER if computing.compiled else 0.0
    kernels = KERNELS * KERNEL if varied and computing.dtype == torch.bfloat16 else 0.0
    process = 0.0 if computing.device.type == "cuda" else FIRST_USE + compiler + kernels
    return (process + (1 + FRAGMENTS) * alive) / GB


def dry_run(job: Job) -> Parts:
    """The parts at the peak of a training step, after the first. Raises RuntimeError and its kin where a model decides
    by numbers what it does, as a mixture of experts may: it cannot be told then."""
    one, layers = _dry(job, 1)
    if layers <= 1:
        return _at_peak(one, job.micro.several)
    two, _ = _dry(job, 2)
    whole = {name: value + (layers - 1) * (two[name] - value) for name, value in one.items()}
    return _at_peak(whole, job.micro.several)


def _at_peak(found: Mapping[str, int], several: bool) -> Parts:
    """Which phase is the highest, and what is alive in it."""
    held = found["weights"], found["masters"], found["moments"]
    gradients = found["gradients"]
    early = gradients if several else 0  # those of an earlier micro-batch
    phases = (
        Parts(*held, early, found["saved"], found["forward"] - found["saved"]),
        Parts(*held, gradients, found["saved"], found["backward"] - found["saved"] - gradients + early),
        Parts(*held, gradients, 0, found["step"] - gradients),
    )
    return max(phases, key=lambda parts: parts.total)


def _dry(job: Job, keep: int) -> tuple[dict[str, int], int]:
    """Bytes of a dry run with the first `keep` layers, and how many layers they stand for; 1 where layers differ."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(job.base), dtype=job.stored)
        layers = _shorten(model, keep)
        trained = job.adapt(model)
    device = job.computing.device
    where = attention.positions(job.micro.lengths, device), attention.documents(job.micro.lengths, device)
    with FakeTensorMode(allow_non_fake_inputs=True), _Alive() as alive:
        _give_storage(trained, device)
        computing = replace(job.computing, model=model, compiled=False)
        optimizers = job.optimizers(trained.train())
        computing.begin(trained, optimizers)
        if job.computing.compiled:  # what is kept for the backward pass as when compiled, but no kernels are made
            for block in blocks_of(model):
                block.compile(dynamic=True, fullgraph=True, backend="aot_eager_decomp_partition")
        held, weights = alive.now, sum(_bytes(p.data) for p in {*trained.parameters(), *trained.buffers()})
        found = {"weights": weights, "masters": held - weights}
        for _ in range(1 + job.micro.several):
            before, alive.peak = alive.now, alive.now
            with computing.training():
                nll = _loss(computing, job.micro, where, _fused if job.computing.compiled else nll_and_gradient)
                found |= {"saved": alive.now - before, "forward": alive.peak - before}
                alive.peak = alive.now
                (nll / 2).backward()
            del nll
            found |= {"backward": alive.peak - before, "gradients": alive.now - held}
        alive.peak = alive.now
        optimizers.step(0)
        found["moments"] = alive.now - held
        found["step"] = alive.peak - alive.now
    if job.computing.compiled:
        torch.compiler.reset()  # torch keeps eight graphs of a function, and these would be two of them
    return found, layers


def _loss(computing: Computing, micro: Micro, where: tuple[Tensor, Any], loss: Loss) -> Tensor:
    """As objective.py has it, with as many trained tokens."""
    device, targets = computing.device, torch.zeros(micro.trained, dtype=torch.int64, device=computing.device)
    at = torch.zeros(micro.trained, dtype=torch.int64, device=device)
    with computing.format():
        if computing.packed:
            ids = torch.zeros(1, sum(micro.lengths), dtype=torch.int64, device=device)
            return computing.nll_at(ids, where, at, targets, loss)
        ids = torch.zeros(len(micro.lengths), max(micro.lengths), dtype=torch.int64, device=device)
        mask = torch.ones_like(ids) if min(micro.lengths) < max(micro.lengths) else None
        logits = computing.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].flatten(0, 1)
        return nn.functional.cross_entropy(logits.index_select(0, at).float(), targets, reduction="sum")


def _fused(logits: Tensor, targets: Tensor) -> Tensor:
    """What `nll_and_gradient` holds when its passes are fused: the compiler makes the gradient apart and copies it."""
    apart = torch.empty_like(logits)
    return apart.new_zeros((), dtype=torch.float32)


def _shorten(model: PreTrainedModel, keep: int) -> int:
    """Leave `keep` of the repeated layers, where all have the same weights. Returns how many there were, or 1."""
    blocks = blocks_of(model)
    lists = (part for part in model.modules() if isinstance(part, nn.ModuleList) and list(part) == blocks)
    holder = next(lists, None)
    if holder is None or len({tuple(p.shape for p in block.parameters()) for block in blocks}) > 1:
        return 1
    del holder[keep:]
    return len(blocks)


def _give_storage(model: nn.Module, device: torch.device) -> None:
    """Parameters and buffers on `device` in place of those on "meta"; tied ones stay tied."""
    parameters: dict[Tensor, nn.Parameter] = {}
    buffers: dict[Tensor, Tensor] = {}
    for part in model.modules():
        for name, p in part._parameters.items():
            if p is not None:
                if p not in parameters:
                    parameters[p] = nn.Parameter(torch.empty_like(p, device=device), p.requires_grad)
                part._parameters[name] = parameters[p]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                if buffer not in buffers:
                    buffers[buffer] = torch.empty_like(buffer, device=device)
                part._buffers[name] = buffers[buffer]


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


class _Alive(TorchDispatchMode):
    """Counts the bytes of all storages that operators make, until they are freed."""

    @classmethod
    def is_infra_mode(cls) -> bool:
        """It changes nothing, so torch.compile may go on under it."""
        return True

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                self.count(one.untyped_storage())
        return out

    def count(self, storage: torch.UntypedStorage) -> None:
        """Of a tensor that is alive. One that was made before is counted when an operator returns a view of it."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, partial(self._gone, key, size))

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
