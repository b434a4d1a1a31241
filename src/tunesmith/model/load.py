"""From what a user calls a base (a directory or a hub id) to a model in memory. Only safetensors is ever read."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from tunesmith.core.artifact import disk_errors, file_hash, writing
from tunesmith.core.errors import ModelError, ResourceError
from tunesmith.model.device import pick_device

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
BASE = "a directory with config.json and *.safetensors, or a hub id such as EleutherAI/pythia-70m"
# Never pickles (.bin, .pt) and never code (.py): what is not downloaded cannot be run.
DOWNLOAD = [
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "*.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "*.model"),
]
SKIP = ["*/*", "consolidated*"]  # folders of other formats, and Mistral's second copy of the weights
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
VOCABULARIES = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model")
CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
NO_LIMIT = 1 << 20  # tokens; for a config that names no limit (ALiBi): positions cannot run out


def resolve(base: str) -> Path:
    """The directory of a base: a local one as it is, a hub id through the hub's cache (downloaded where needed).

    HF_HUB_OFFLINE=1 allows the cache only. Raises ModelError with what was tried and what to type next.
    """
    path = Path(base).expanduser()
    if path.is_dir():
        read_config(path)
        return path
    if path.is_file():
        raise ModelError(f"{base} is a file", expected=BASE, fix=f"give its directory: {path.parent}")
    org, _, name = base.partition("/")
    if HUB_ID.fullmatch(base) and not (name and Path(org).is_dir()):
        return _download(base)
    raise ModelError(f"there is no directory {base}", expected=BASE, fix=_neighbour(path) or "check the path")


def _neighbour(path: Path) -> str:
    """A hint at the directory beside `path` whose name is nearest, or ''."""
    names = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"did you mean '{path.parent / close[0]}'?" if close else ""


def _download(base: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    network = HfHubHTTPError.__bases__[0]  # HTTPError of httpx, or of httpx2 since huggingface_hub 2
    there = f"download it where there is a network (hf download {base}) and give the directory, or check the name"
    if constants.HF_HUB_OFFLINE:
        there = f"unset HF_HUB_OFFLINE to download it, or {there}"
    try:
        with disk_errors(Path(constants.HF_HUB_CACHE)):
            path = Path(snapshot_download(base, allow_patterns=DOWNLOAD, ignore_patterns=SKIP))
    except GatedRepoError as error:
        fix = f"accept its terms on the page of {base} at the hub, then: hf auth login"
        raise ModelError(f"the hub lends {base} only to those who accepted its terms", fix=fix) from error
    except RepositoryNotFoundError as error:
        fix = _neighbour(Path(base)) or "check the name; for a private model: hf auth login"
        raise ModelError(f"no directory and no model on the hub is called {base}", expected=BASE, fix=fix) from error
    except (OSError, network, HFValidationError) as error:
        what = f"no directory is called {base}, and the hub could not give it ({_first_line(error)})"
        raise ModelError(what, expected=BASE, fix=_neighbour(Path(base)) or there) from error
    read_config(path)
    return path


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def read_config(path: Path) -> dict[str, Any]:
    """The config.json of a model directory. Raises ModelError where `path` is not one, or is an adapter."""
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            base = _adapter_base(path)
            fix = f"use {base}, or merge the adapter into it first (peft: merge_and_unload, then save_pretrained)"
            raise ModelError(f"{path} is an adapter for {base}, not a model", expected=BASE, fix=fix)
        raise ModelError(f"{path} is not a model: it has no config.json", expected=BASE)
    return _json(path / "config.json")


def _json(path: Path) -> dict[str, Any]:
    """A JSON object of a model directory, where Infinity is a number (Mamba's configs have it)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} cannot be read: {_first_line(error)}", fix="download the model again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__}", expected="a JSON object")
    return found


def _adapter_base(path: Path) -> str:
    base = _json(path / "adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{path / 'adapter_config.json'} names no base", expected="base_model_name_or_path")
    return str(base)


def check_causal(path: Path) -> None:
    """Raise ModelError where the directory is not a causal language model that `transformers` itself knows."""
    config = read_config(path)
    family, names = config.get("model_type"), config.get("architectures") or []
    known = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if family not in known and "auto_map" in config:
        what = f"{path} ('{family}') runs on Python code of its own"
        raise ModelError(what, expected="a model that transformers knows: code from a model is never run")
    if family not in known or (names and not set(names) & set(known.values())):
        what = f"{path} is a {', '.join(names) or family or 'model without a model_type'}, not a causal language model"
        raise ModelError(what, expected="an architecture such as LlamaForCausalLM or GPT2LMHeadModel")


def load_model(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    """A causal language model in eval mode on the GPU where there is one, else on the CPU.

    Raises ModelError on anything but a whole causal model in safetensors, ResourceError when memory runs out.
    """
    check_causal(path)
    _check_weights(path, "*.safetensors")
    with _load_errors(path), quiet():
        model, info = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        if info["missing_keys"]:  # transformers would fill them with random numbers
            names = sorted(info["missing_keys"])
            what = f"{path} lacks the weights of {len(names)} parameters, such as {names[0]}"
            raise ModelError(what, fix="download the model again, or take another base")
        return model.to(pick_device()).eval()


def load_trained(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    """A model that a run left: a model directory, or a PEFT adapter directory put on its base (found by `resolve`).

    The adapter stays unmerged, in float32. Errors as `load_model`.
    """
    if not (path / "adapter_config.json").is_file():
        return load_model(path, dtype)
    from peft import PeftModel

    _check_weights(path, "adapter_model.safetensors")
    base = load_model(resolve(_adapter_base(path)), dtype)
    with _load_errors(path), quiet(), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys", category=UserWarning)
        return PeftModel.from_pretrained(base, path, local_files_only=True).eval()


def _check_weights(path: Path, pattern: str) -> None:
    if any(path.glob(pattern)):
        return
    pickles = sorted(p.name for kind in PICKLES for p in path.glob(kind))
    if not pickles:
        raise ModelError(f"{path} has no weights ({pattern})", fix="download the model again")
    what = f"{path} has its weights as a pickle only ({pickles[0]}), which can run any code and is never read"
    fix = "where you trust it, convert it once: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)"
    raise ModelError(what, expected="*.safetensors", fix=fix)


@contextmanager
def _load_errors(path: Path) -> Iterator[None]:
    """What transformers, peft and safetensors raise on a broken directory, as our errors."""
    from safetensors import SafetensorError

    try:
        yield
    except ImportError as error:
        raise ModelError(f"{path} cannot be loaded: {_first_line(error)}", fix="install what it names") from error
    except (OSError, ValueError, KeyError, RuntimeError, UserWarning, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise ResourceError(f"{path} does not fit: {_first_line(error)}", fix="take a smaller base") from error
        what = f"{path} cannot be loaded: {_first_line(error)}"
        raise ModelError(what, fix="download the model again; a cut download looks like this") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers and peft inside; all as it was afterwards."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():  # peft 0.21 reads a name that transformers 5.23 calls old
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def ensure_fast_tokenizer(path: Path, cache: Path) -> Path:
    """A directory with a tokenizer.json: `path` where it has one, else a conversion kept below `cache`.

    Raises ModelError where there is no tokenizer, or one that only its own code can read.
    """
    if (path / "tokenizer.json").is_file():
        return path
    sources = [path / name for name in VOCABULARIES if (path / name).is_file()]  # without one an empty one is made up
    config = path / "tokenizer_config.json"
    foreign = config.is_file() and "AutoTokenizer" in _json(config).get("auto_map", {})
    if foreign or not sources:
        what = "a tokenizer that runs on Python code of its own" if foreign else "no tokenizer"
        raise ModelError(f"{path} has {what}", expected="tokenizer.json", fix="take the files of its original base")
    hashes = [file_hash(p) for p in [*sources, config] if p.is_file()]
    key = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
    final = cache / "tokenizers" / key
    if not (final / "tokenizer.json").is_file():
        with writing(final) as work, quiet():
            with _load_errors(path):
                tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            tokenizer.save_pretrained(work)
            if not (work / "tokenizer.json").is_file():
                raise ModelError(f"the tokenizer of {path} has no fast form", expected="tokenizer.json")
            os.rename(work, final)
    return final


def base_hash(path: Path) -> str:
    """One sha256 over the weights and configs of a model or adapter directory, by content, wherever it lies."""
    names = ("config.json", "generation_config.json", "adapter_config.json")
    files = [path / name for name in names if (path / name).is_file()] + sorted(path.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{path} is not a model: it has no config.json and no *.safetensors", expected=BASE)
    return hashlib.sha256("\n".join(f"{p.name} {file_hash(p)}" for p in files).encode()).hexdigest()


def context_length(config: Any) -> int:
    """The most tokens that a model can attend to, by the usual names in its config; NO_LIMIT where it names none."""
    text = config.get_text_config(decoder=True)
    return next((int(value) for name in CONTEXT if (value := getattr(text, name, None))), NO_LIMIT)


def stored_dtype(path: Path) -> torch.dtype:
    """The format that a directory's weights are kept in, which plain transformers would load them in too.

    An adapter directory has its base's.
    """
    if (path / "adapter_config.json").is_file():
        return stored_dtype(resolve(_adapter_base(path)))
    config = read_config(path)
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    found = getattr(torch, str(name), None)
    return found if isinstance(found, torch.dtype) and found.is_floating_point else torch.float32
