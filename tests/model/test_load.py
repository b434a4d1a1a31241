import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tunesmith.core.errors import ModelError, ResourceError
from tunesmith.model.adapter import add_lora
from tunesmith.model.load import (
    NO_LIMIT,
    base_hash,
    check_causal,
    context_length,
    ensure_fast_tokenizer,
    load_model,
    load_trained,
    quiet,
    resolve,
)


@pytest.fixture
def copy(llama_dir: Path, tmp_path: Path) -> Path:
    """A Llama directory that a test may break."""
    return Path(shutil.copytree(llama_dir, tmp_path / "base"))


@pytest.fixture
def adapter(llama_dir: Path, tmp_path: Path) -> Path:
    """An adapter that changes its base."""
    model = add_lora(load_model(llama_dir, torch.float32), 4, 8, 0.0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.1)
    with quiet():
        model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# resolve


def test_a_model_directory_is_itself(any_model_dir: Path) -> None:
    assert resolve(str(any_model_dir)) == any_model_dir


def test_a_missing_directory_names_its_nearest_neighbour(copy: Path) -> None:
    with pytest.raises(ModelError, match=f"did you mean '{copy}'"):
        resolve(f"{copy}e")
    with pytest.raises(ModelError, match="check the path"):
        resolve(str(copy / "no" / "such"))


def test_a_relative_path_whose_folder_exists_is_no_hub_id(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent.parent)
    with pytest.raises(ModelError, match=r"there is no directory(.|\n)*did you mean"):
        resolve(f"{copy.parent.name}/bas")


def test_a_directory_without_config_and_a_file_are_refused(tmp_path: Path, llama_dir: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(str(tmp_path))
    with pytest.raises(ModelError, match=r"is a file(.|\n)*give its directory"):
        resolve(str(llama_dir / "model.safetensors"))


def test_a_hub_id_without_a_network_says_what_to_type(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    monkeypatch.chdir(copy.parent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(copy.parent / "empty"))
    for name in ("nobody/nothing-1b", "nothing-1b"):
        with pytest.raises(ModelError, match=f"no directory is called {name}(.|\n)*hf download {name}"):
            resolve(name)
    with pytest.raises(ModelError, match="did you mean 'base'"):
        resolve("bass")
    with pytest.raises(ModelError, match="could not give it"):
        resolve("a--b/c")


def test_a_hub_id_in_the_cache_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, llama_dir: Path
) -> None:
    store = tmp_path / "models--some--tiny"
    shutil.copytree(llama_dir, store / "snapshots" / ("0" * 40))
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert load_model(resolve("some/tiny"), torch.float32).config.model_type == "llama"


def test_only_weights_configs_and_tokenizers_are_downloaded(monkeypatch: pytest.MonkeyPatch, llama_dir: Path) -> None:
    from huggingface_hub.utils import filter_repo_objects

    asked = {}

    def fake(base: str, **named: list[str]) -> str:
        asked.update(named)
        return str(llama_dir)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    resolve("some/tiny")
    wanted = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"]
    wanted += ["generation_config.json", "tokenizer.model", "chat_template.jinja", "vocab.json", "merges.txt"]
    refused = ["pytorch_model.bin", "x.pt", "modeling_x.py", "tokenizer.py", "onnx/model.safetensors", "a.gguf"]
    refused += ["consolidated.safetensors", "README.md", "training_args.bin"]
    assert list(filter_repo_objects(wanted + refused, **asked)) == wanted


# check_causal


def test_the_four_families_are_causal(any_model_dir: Path) -> None:
    check_causal(any_model_dir)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "is a BertForMaskedLM, not a causal"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification, not a causal"),
        ({"model_type": "t5", "architectures": None}, "is a t5, not a causal"),
        ({"model_type": None, "architectures": None}, "without a model_type"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "x.C"}}, "Python code of its own"),
    ],
)
def test_what_is_no_causal_model_is_said(copy: Path, values: dict[str, object], said: str) -> None:
    change(copy / "config.json", **values)
    with pytest.raises(ModelError, match=said):
        check_causal(copy)
    with pytest.raises(ModelError, match=said):
        load_model(copy, torch.float32)


def test_a_config_without_architectures_goes_by_its_family(copy: Path) -> None:
    change(copy / "config.json", architectures=None)
    check_causal(copy)


def test_a_broken_config_is_said(copy: Path) -> None:
    for text in ("<html>", "[1]", '{"a": '):
        (copy / "config.json").write_text(text)
        with pytest.raises(ModelError, match=r"config\.json"):
            check_causal(copy)


def test_an_adapter_as_a_base_is_sent_to_its_base(adapter: Path, llama_dir: Path) -> None:
    with pytest.raises(ModelError, match=f"is an adapter for {llama_dir}"):
        resolve(str(adapter))


# load_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_loads_in_eval_mode_in_the_dtype_asked_for(any_model_dir: Path, dtype: torch.dtype) -> None:
    model = load_model(any_model_dir, dtype)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_loading_writes_nothing_and_leaves_the_settings_as_they_were(
    any_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(any_model_dir, torch.float32)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_pickled_weights_are_never_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load_model(copy, torch.float32)
    (copy / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(ModelError, match=r"pickle only \(pytorch_model\.bin\)(.|\n)*save_pretrained"):
        load_model(copy, torch.float32)


def test_a_cut_weights_file_is_an_error(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy, torch.float32)
    weights.write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy, torch.float32)


def test_a_missing_tensor_is_an_error_and_not_random_numbers(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the weights of 1 parameters, such as model\.layers\.1\.mlp"):
        load_model(copy, torch.float32)


def test_a_tensor_of_another_shape_is_an_error(copy: Path) -> None:
    change(copy / "config.json", intermediate_size=32)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy, torch.float32)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("[x] DefaultCPUAllocator: no")])
def test_too_little_memory_is_not_blamed_on_the_model(
    llama_dir: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(ResourceError, match="does not fit"):
        load_model(llama_dir, torch.float32)


def test_a_missing_shard_is_an_error(copy: Path) -> None:
    with quiet():
        AutoModelForCausalLM.from_pretrained(copy).save_pretrained(copy / "sharded", max_shard_size="50KB")
    shards = sorted((copy / "sharded").glob("*.safetensors"))
    assert len(shards) > 1
    load_model(copy / "sharded", torch.float32)
    shards[0].unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded|lacks the weights"):
        load_model(copy / "sharded", torch.float32)


# load_trained


def test_a_trained_model_directory_and_an_adapter_directory_both_load(llama_dir: Path, adapter: Path) -> None:
    ids = torch.tensor([[5, 6, 7]])
    base, tuned = (load_trained(path, torch.float32)(input_ids=ids).logits for path in (llama_dir, adapter))
    assert torch.equal(base, load_model(llama_dir, torch.float32)(input_ids=ids).logits)
    assert not torch.allclose(base, tuned)
    model = load_trained(adapter, torch.bfloat16)
    assert not model.training
    assert {p.dtype for name, p in model.named_parameters() if "lora_" in name} == {torch.float32}


def test_an_adapter_with_missing_weights_or_base_is_an_error(adapter: Path, tmp_path: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, weights)
    with pytest.raises(ModelError, match="missing adapter keys"):
        load_trained(adapter, torch.float32)
    weights.rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickle only"):
        load_trained(adapter, torch.float32)
    (adapter / "adapter_model.bin").rename(weights)
    change(adapter / "adapter_config.json", base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="there is no directory"):
        load_trained(adapter, torch.float32)
    change(adapter / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(ModelError, match="names no base"):
        load_trained(adapter, torch.float32)


# tokenizers, hashes, context


def test_a_fast_tokenizer_stays_where_it_is(any_model_dir: Path, tmp_path: Path) -> None:
    assert ensure_fast_tokenizer(any_model_dir, tmp_path / "cache") == any_model_dir
    assert not (tmp_path / "cache").exists()


def test_a_slow_tokenizer_is_converted_once_into_the_cache(gpt2_dir: Path, tmp_path: Path) -> None:
    slow, cache = tmp_path / "slow", tmp_path / "cache"
    slow.mkdir()
    shutil.copy(gpt2_dir / "config.json", slow)
    bpe = json.loads((gpt2_dir / "tokenizer.json").read_text())["model"]
    (slow / "vocab.json").write_text(json.dumps(bpe["vocab"]))
    (slow / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in bpe["merges"]))
    (slow / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    made = ensure_fast_tokenizer(slow, cache)
    assert cache in made.parents
    text = "How do I reset my password?"
    fast, wanted = (AutoTokenizer.from_pretrained(path)(text)["input_ids"] for path in (made, gpt2_dir))
    assert fast == wanted
    stamp = (made / "tokenizer.json").stat().st_mtime_ns
    assert ensure_fast_tokenizer(slow, cache) == made
    assert (made / "tokenizer.json").stat().st_mtime_ns == stamp


def test_no_tokenizer_and_one_of_foreign_code_are_errors(copy: Path, tmp_path: Path) -> None:
    (copy / "tokenizer.json").unlink()
    change(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.T", None]})
    with pytest.raises(ModelError, match="Python code of its own"):
        ensure_fast_tokenizer(copy, tmp_path / "cache")
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(ModelError, match="has no tokenizer"):
        ensure_fast_tokenizer(copy, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*tokenizer*.json"))


def test_the_hash_of_a_base_is_of_its_content_and_not_of_its_place(llama_dir: Path, copy: Path, adapter: Path) -> None:
    before = base_hash(llama_dir)
    assert base_hash(copy) == before
    shutil.copy(copy / "tokenizer.json", copy / "other.json")
    assert base_hash(copy) == before
    change(copy / "config.json", rms_norm_eps=1e-3)
    changed = base_hash(copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert len({before, changed, base_hash(copy), base_hash(adapter)}) == 4
    with pytest.raises(ModelError, match="is not a model"):
        base_hash(copy.parent)


def test_the_context_length_is_found_under_every_usual_name(
    any_model_dir: Path, make_model_dir: Callable[..., Path]
) -> None:
    assert context_length(load_model(any_model_dir, torch.float32).config) == 128
    assert context_length(transformers.GPT2Config(n_positions=77)) == 77
    assert context_length(transformers.MptConfig(max_seq_len=55)) == 55
    assert context_length(transformers.BloomConfig()) == NO_LIMIT


def test_the_fixtures_are_what_they_say(gpt2_dir: Path, llama_dir: Path, qwen_dir: Path) -> None:
    gpt2, llama, qwen = (AutoTokenizer.from_pretrained(path) for path in (gpt2_dir, llama_dir, qwen_dir))
    assert (gpt2.pad_token, llama.pad_token, qwen.pad_token) == (None, None, "<|endoftext|>")
    assert llama("a")["input_ids"][0] == llama.bos_token_id
    assert gpt2.chat_template is None
    assert qwen.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    )
    assert isinstance(gpt2, PreTrainedTokenizerFast)
    with safe_open(gpt2_dir / "model.safetensors", framework="pt") as tensors:
        assert "lm_head.weight" not in list(tensors.keys())


def test_the_light_side_of_the_engine_imports_no_torch() -> None:
    rooms = "tunesmith.engine.base, tunesmith.engine.sampling, tunesmith.model"
    code = f"import sys, {rooms}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
