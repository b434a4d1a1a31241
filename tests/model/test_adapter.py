import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tunesmith.core.errors import ModelError
from tunesmith.model.adapter import add_lora, linear_names, merged, trainable_parameters
from tunesmith.model.load import load_model, quiet

LINEAR = {
    "gpt2": ["c_attn", "c_fc", "c_proj"],
    "gpt_neox": ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"],
    "llama": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
}
LINEAR["qwen3"] = LINEAR["llama"]
IDS = torch.tensor([[5, 6, 7, 8]])


def wake(model: PeftModel) -> PeftModel:
    """Give every B matrix, which starts at zero, some numbers."""
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return model


def test_all_linear_layers_are_adapted_and_neither_head_nor_embeddings(any_model_dir: Path) -> None:
    model = load_model(any_model_dir, torch.float32)
    names = LINEAR[model.config.model_type]
    assert linear_names(model) == names
    adapted = add_lora(model, 4, 8, 0.0)
    found = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in adapted.named_parameters() if "lora_" in name}
    assert sorted(found) == names
    trainable = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trainable == {name for name, _ in adapted.named_parameters() if "lora_" in name}


def test_a_fresh_adapter_changes_no_output_and_training_it_does(any_model_dir: Path) -> None:
    model = load_model(any_model_dir, torch.float32)
    before = model(input_ids=IDS).logits.detach()
    adapted = add_lora(model, 4, 8, 0.1).eval()
    assert torch.equal(adapted(input_ids=IDS).logits, before)
    adapted(input_ids=IDS, labels=IDS).loss.backward()
    for name, weight in adapted.named_parameters():
        assert (weight.grad is not None) == ("lora_" in name)
    with torch.no_grad():
        for weight in adapted.parameters():
            weight -= 0.5 * weight.grad if weight.grad is not None else 0
    assert not torch.allclose(adapted(input_ids=IDS).logits, before)


def test_rank_alpha_dropout_and_targets_reach_the_adapter(llama_dir: Path) -> None:
    def wrapped(rank: int = 4, alpha: float = 8, dropout: float = 0.0, targets: list[str] | None = None) -> PeftModel:
        return add_lora(load_model(llama_dir, torch.float32), rank, alpha, dropout, targets or "all-linear")

    base = trainable_parameters(wrapped())
    assert trainable_parameters(wrapped(rank=8))[0] == 2 * base[0]
    assert trainable_parameters(wrapped(targets=["q_proj"]))[0] == 2 * 4 * (32 + 32)
    q_proj = [wrapped(alpha=a).base_model.model.model.layers[0].self_attn.q_proj for a in (8, 16)]
    assert [layer.scaling["default"] for layer in q_proj] == [2.0, 4.0]
    noisy = wake(wrapped(dropout=0.5)).train()
    assert not torch.allclose(noisy(input_ids=IDS).logits, noisy(input_ids=IDS).logits)


@pytest.mark.parametrize("name", ["q_prj", "lm_head", "embed_tokens"])
def test_a_name_that_is_no_linear_layer_is_an_error_with_the_names_that_are(llama_dir: Path, name: str) -> None:
    with pytest.raises(ModelError, match=rf"no linear layer '{name}'(.|\n)*down_proj, gate_proj, k_proj") as caught:
        add_lora(load_model(llama_dir, torch.float32), 4, 8, 0.0, [name])
    assert ("did you mean 'q_proj'" in str(caught.value)) == (name == "q_prj")


def test_parameters_are_counted_by_hand(llama_dir: Path, gpt2_dir: Path) -> None:
    llama = load_model(llama_dir, torch.float32)
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32  # q o, k v, the three of the MLP, two norms
    total = 2 * 400 * 32 + 2 * layer + 32  # head and embedding are two
    assert trainable_parameters(llama) == (total, total)
    lora = 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    assert trainable_parameters(add_lora(llama, 4, 8, 0.0)) == (lora, total + lora)
    gpt2 = load_model(gpt2_dir, torch.float32)
    tied = 400 * 32 + 128 * 32 + 2 * 32 + 2 * (32 * 96 + 96 + 32 * 32 + 32 + 2 * 32 * 128 + 128 + 32 + 4 * 32)
    assert trainable_parameters(gpt2) == (tied, tied)


def test_adapter_weights_are_float32_on_a_bfloat16_base(any_model_dir: Path) -> None:
    model = add_lora(load_model(any_model_dir, torch.bfloat16), 4, 8, 0.0)
    dtypes = {("lora_" in name, p.dtype) for name, p in model.named_parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    assert model(input_ids=IDS).logits.isfinite().all()


def test_merging_gives_the_outputs_of_the_adapter_and_a_plain_model(any_model_dir: Path, tmp_path: Path) -> None:
    model = wake(add_lora(load_model(any_model_dir, torch.float32), 4, 8, 0.0))
    wanted = model(input_ids=IDS).logits
    plain = merged(model)
    assert type(plain).__name__ == json.loads((any_model_dir / "config.json").read_text())["architectures"][0]
    assert torch.allclose(plain(input_ids=IDS).logits, wanted, atol=1e-5)
    with quiet():
        plain.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "generation_config.json", "model.safetensors"]
    assert torch.equal(loaded(input_ids=IDS).logits, plain(input_ids=IDS).logits)


def test_a_bfloat16_merge_rounds_the_exact_sum_once(any_model_dir: Path) -> None:
    model = wake(add_lora(load_model(any_model_dir, torch.bfloat16), 4, 8, 0.0))
    wanted = {}
    for name, part in model.base_model.model.named_modules():
        if hasattr(part, "lora_A"):
            weight = part.base_layer.weight.detach().double()
            delta = part.lora_B["default"].weight.double() @ part.lora_A["default"].weight.double() * 2.0
            wanted[name] = weight + (delta.T if type(part.base_layer).__name__ == "Conv1D" else delta)
    assert wanted
    parameters = dict(merged(model).named_parameters())
    assert {p.dtype for p in parameters.values()} == {torch.bfloat16}
    for name, exact in wanted.items():
        merged_once = parameters[f"{name}.weight"].double()  # half a unit in the last of 8 bits: 2**-8
        assert torch.allclose(merged_once, exact, rtol=2**-8 * 1.001, atol=1e-9), name
