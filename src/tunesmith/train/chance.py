"""The state of every random number generator that a model may draw from: taken down and put back, bit for bit."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch

Chance = tuple[torch.Tensor, list[torch.Tensor], tuple[Any, ...], dict[str, Any]]  # torch, each GPU, Python, numpy


def take() -> Chance:
    """Cheap enough for every step: no device is waited for."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), cuda, random.getstate(), dict(np.random.get_state(legacy=False))


def put_back(chance: Chance) -> None:
    cpu, cuda, python, numpy = chance
    torch.set_rng_state(cpu)
    if len(cuda) == torch.cuda.device_count():  # else it was taken on another machine: theirs start as they are
        torch.cuda.set_rng_state_all(cuda)
    random.setstate(python)
    np.random.set_state(numpy)


def to_tensors(chance: Chance) -> dict[str, torch.Tensor]:
    """Named tensors for a safetensors file."""
    cpu, cuda, (_, words, gauss), numpy = chance
    inner = numpy["state"]
    return {
        "torch": cpu,
        **{f"cuda.{n}": state for n, state in enumerate(cuda)},
        "python": torch.tensor(words),
        "numpy": torch.tensor([*inner["key"].tolist(), inner["pos"], numpy["has_gauss"]]),
        "gauss": torch.tensor([math.nan if gauss is None else gauss, numpy["gauss"]], dtype=torch.float64),
    }


def from_tensors(tensors: dict[str, torch.Tensor]) -> Chance:
    """What `to_tensors` took. Raises KeyError where a tensor is missing."""
    cuda = [tensors[f"cuda.{n}"] for n in range(sum(name.startswith("cuda.") for name in tensors))]
    python, numpy = tensors["gauss"].tolist()
    *key, at, has_gauss = tensors["numpy"].tolist()
    words = tuple(tensors["python"].tolist())
    inner = {"key": np.array(key, dtype=np.uint32), "pos": at}
    state = {"bit_generator": "MT19937", "state": inner, "has_gauss": has_gauss, "gauss": numpy}
    return tensors["torch"], cuda, (random.Random.VERSION, words, None if math.isnan(python) else python), state
