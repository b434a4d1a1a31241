"""What every test shares: no network, one CPU thread, tiny models of four families with random weights, the command
line in this process, and an endpoint that misbehaves."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: before any test
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same numbers on every machine

import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.records import Row, pair

ARCHS = ("gpt2", "neox", "llama", "qwen")
TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "How do I reset my password? Open the settings, choose Account, and press Reset.",
    "What is the capital of France? The capital of France is Paris.",
    "def add(first, second):\n    return first + second\n",
    "### Question:\nWhich colour is the sky?\n\n### Answer:\nThe sky is blue on a clear day.",
]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# family -> the special tokens of its tokenizer, as found in the wild (GPT-2 and GPT-NeoX have no pad token)
SPECIAL: dict[str, dict[str, str]] = {
    "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
    "neox": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
    "llama": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "qwen": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
}
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,  # wide enough that greedy text varies
}


def make_tokenizer(arch: str) -> Any:
    """A byte-level BPE of 400 tokens, with the special tokens of the family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    names = list(dict.fromkeys([*SPECIAL[arch].values(), *(["<|im_start|>"] if arch == "qwen" else [])]))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXTS * 2,
        trainers.BpeTrainer(vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False),
    )
    if arch == "llama":
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **SPECIAL[arch])
    if arch == "qwen":
        tokenizer.chat_template = CHATML
    return tokenizer


def make_config(arch: str, tokenizer: Any, **changes: Any) -> Any:
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen3Config

    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids |= {"pad_token_id": tokenizer.pad_token_id}
    vocab = len(tokenizer)
    if arch == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.25}
        return GPT2Config(**{"vocab_size": vocab, **shape, **ids, **changes})
    if arch == "neox":  # more rows than tokens, as in the wild
        return GPTNeoXConfig(**{"vocab_size": vocab + 8, **SHAPE, "use_cache": True, **ids, **changes})
    grouped = SHAPE | {"num_key_value_heads": 2}
    if arch == "llama":
        return LlamaConfig(**{"vocab_size": vocab, **grouped, **ids, **changes})
    tied = {"head_dim": 8, "tie_word_embeddings": True}
    return Qwen3Config(**{"vocab_size": vocab, **grouped, **tied, **ids, **changes})


@pytest.fixture(scope="session")
def make_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_model_dir(arch, **config)`: a new model directory of a family, weights seeded, config fields changed."""

    def make(arch: str, **config: Any) -> Path:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        path = tmp_path_factory.mktemp(arch)
        tokenizer = make_tokenizer(arch)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(make_config(arch, tokenizer, **config))
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path

    return make


@pytest.fixture(autouse=True)
def _plain_floats() -> Iterator[None]:
    """Training in this process sets flush-denormal, which hypothesis' float tests rightly refuse."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def gpt2_dir(make_model_dir: Callable[..., Path]) -> Path:
    return make_model_dir("gpt2")


@pytest.fixture(scope="session")
def neox_dir(make_model_dir: Callable[..., Path]) -> Path:
    return make_model_dir("neox")


@pytest.fixture(scope="session")
def llama_dir(make_model_dir: Callable[..., Path]) -> Path:
    return make_model_dir("llama")


@pytest.fixture(scope="session")
def qwen_dir(make_model_dir: Callable[..., Path]) -> Path:
    return make_model_dir("qwen")


@pytest.fixture(params=ARCHS)
def any_model_dir(request: pytest.FixtureRequest) -> Path:
    """Each of the four families in turn. Read only: shared by the session."""
    path: Path = request.getfixturevalue(f"{request.param}_dir")
    return path


@pytest.fixture
def pair_rows() -> list[Row]:
    """24 rows of one turn, all different, with answers of different lengths."""
    colours = ("red", "green", "blue", "grey")
    things = ("sky", "dog", "fox", "door", "sea", "leaf")
    rows = []
    for number, thing in enumerate(things):
        for colour in colours:
            answer = f"The {thing} is {colour}." + " It stays so." * (number % 3)
            rows.append(pair(f"Which colour is {colour} {thing} {number}?", answer))
    return rows


@dataclass(frozen=True)
class Said:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout, where nothing else may be."""
        (line,) = self.out.splitlines()
        return dict(json.loads(line))


@pytest.fixture(scope="session")
def said() -> type[Said]:
    return Said


@pytest.fixture(scope="session")
def tunesmith() -> Callable[..., Said]:
    """`tunesmith(*words, cwd=folder, typed="")`: the command in this process, with what a person types at it.

    Anything but an exit, a traceback that is, fails the test.
    """

    def run(*words: object, cwd: Path, typed: str = "") -> Said:
        from tunesmith import cli

        out, err, code = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["tunesmith", *map(str, words)])
            patch.setattr(sys, "stdin", io.StringIO(typed))
            patch.chdir(cwd)
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
        return Said(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of their own for the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("TUNESMITH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def serving() -> Callable[..., Any]:
    """`with serving(brain, script, seconds) as endpoint`: a real server on this machine, which misbehaves by script."""
    spec = importlib.util.spec_from_file_location("tests_endpoint", Path(__file__).with_name("endpoint.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = module.serving
    return found
