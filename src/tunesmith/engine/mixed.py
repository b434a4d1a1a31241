"""Base and tuned in one batch: an adapter that works on some rows of it and not on others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from tunesmith.core.errors import ModelError


class RowAdapter:
    """A LoRA adapter, switched by row. A row without it has exactly the base's numbers: what is added is 0."""

    def __init__(self, model: PeftModel) -> None:
        """Raises ModelError where `suits` does not hold."""
        if not self.suits(model):
            what = "base and tuned cannot share one batch: the adapter does more than add to linear layers"
            raise ModelError(what, fix="ask them one after the other")
        self.rows: Tensor | None = None
        layers = [part for part in model.modules() if isinstance(part, LoraLayer)]
        self.last = [part.lora_B[name] for part in layers for name in part.active_adapters if name in part.lora_B]

    @staticmethod
    def suits(model: PeftModel) -> bool:
        """Whether the adapter is plain LoRA, which adds to the outputs of linear layers and does nothing else."""
        layers = [part for part in model.modules() if isinstance(part, LoraLayer)]
        whole = any(isinstance(part, ModulesToSaveWrapper) for part in model.modules())
        other = any(len(part.lora_embedding_A) or part.lora_variant or part.merged for part in layers)
        return bool(layers) and not whole and not other and model.active_peft_config.bias == "none"

    @contextmanager
    def by_row(self) -> Iterator[None]:
        """`rows` [..., 1], 1 with the adapter and 0 without, is obeyed inside; None is every row with it."""
        handles = [part.register_forward_hook(self._switch) for part in self.last]
        try:
            yield
        finally:
            self.rows = None
            for handle in handles:
                handle.remove()

    def _switch(self, module: nn.Module, given: Any, out: Tensor) -> Tensor:
        return out if self.rows is None else out * self.rows.to(out.dtype)
