from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.model import attention
from tunesmith.model.load import load_model

CPU = torch.device("cpu")
LENGTHS = [9, 1, 23, 14]


def logits(model: Any, ids: torch.Tensor, lengths: list[int], kind: attention.Kind = "documents") -> torch.Tensor:
    given = {"position_ids": attention.positions(lengths, CPU), "documents": attention.documents(lengths, CPU)}
    with torch.no_grad(), attention.using(model, kind):
        found: torch.Tensor = model(ids, use_cache=False, **given).logits
    return found


def ids_of(model: Any, count: int) -> torch.Tensor:
    return torch.randint(0, model.config.vocab_size, (1, count), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["documents", "bucketed"])
def test_a_packed_row_has_the_logits_of_each_document_alone(
    kind: attention.Kind, any_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.model.bucketed.compiled", lambda: attention.bucketed.EAGER)
    model = load_model(any_model_dir, torch.float64)
    ids = ids_of(model, sum(LENGTHS))
    with torch.no_grad():
        alone = torch.cat([model(part, use_cache=False).logits for part in ids.split(LENGTHS, 1)], 1)
    torch.testing.assert_close(logits(model, ids, LENGTHS, kind), alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["documents", "bucketed"])
def test_a_changed_document_changes_no_bit_of_another(
    kind: attention.Kind, any_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.model.bucketed.compiled", lambda: attention.bucketed.EAGER)
    model = load_model(any_model_dir, torch.float32)
    ids = ids_of(model, sum(LENGTHS))
    changed = ids.clone()
    changed[0, 10:33] = (ids[0, 10:33] + 1) % model.config.vocab_size  # the third document
    before, after = logits(model, ids, LENGTHS, kind), logits(model, changed, LENGTHS, kind)
    kept = torch.ones(sum(LENGTHS), dtype=torch.bool)
    kept[10:33] = False
    assert torch.equal(before[0, kept], after[0, kept])
    assert not torch.equal(before[0, 10:33], after[0, 10:33])


def test_a_sliding_window_is_kept_within_a_document(make_model_dir: Callable[..., Path]) -> None:
    from transformers import AutoModelForCausalLM, MistralConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = MistralConfig(
            vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=5, initializer_range=0.3,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config).double().eval()
    ids = ids_of(model, 40)
    with torch.no_grad():
        alone = torch.cat([model(part, use_cache=False).logits for part in ids.split([25, 15], 1)], 1)
    torch.testing.assert_close(logits(model, ids, [25, 15]), alone, rtol=0, atol=1e-10)


def test_the_model_speaks_as_before_afterwards(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="inside"), attention.using(model, "documents"):
        raise RuntimeError("inside")
    assert model.config._attn_implementation == before
