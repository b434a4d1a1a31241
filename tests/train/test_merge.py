from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import ModelError, UsageError
from tunesmith.core.jsonl import read_rows
from tunesmith.model import load
from tunesmith.train import merge as merging
from tunesmith.train.merge import merge


def test_the_merged_run_is_a_plain_model_with_the_answers_of_the_adapter(
    tuned: Callable[..., Any], small_set: Artifact, tmp_path: Path
) -> None:
    run = tuned("llama", "lora").run
    rows = list(read_rows(small_set.path / "valid.jsonl"))
    made = merge(run, rows, tmp_path / "merged")
    facts = made.facts["merge"]
    assert (made.kind, made.facts["method"], made.facts["merged_from"]) == ("run", "merged", run.name)
    assert made.facts["base_path"] == run.facts["base_path"]
    assert facts["tokens"] > 10
    assert facts["kl_mean"] <= facts["kl_max"] < 1e-6  # float32: nothing is rounded
    assert facts["first_choice_equal"] == 1.0
    assert not list((made.path / "model").glob("adapter*"))
    adapter, plain = (
        load.load_trained(run.path / "model", torch.float32),
        load.load_model(made.path / "model", torch.float32),
    )
    ids = torch.arange(3, 20)[None]
    torch.testing.assert_close(plain(input_ids=ids).logits, adapter(input_ids=ids).logits)
    base = load.load_model(Path(run.facts["base_path"]), torch.float32)
    assert float((plain(input_ids=ids).logits - base(input_ids=ids).logits).detach().abs().max()) > 1e-3


def test_a_merge_that_changes_more_than_is_tolerated_is_refused_and_leaves_nothing(
    tuned: Callable[..., Any], small_set: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgets(model: Any) -> Any:
        return model.unload()

    monkeypatch.setattr(merging, "merged", forgets)
    rows = list(read_rows(small_set.path / "valid.jsonl"))
    with pytest.raises(ModelError, match="changes what it says"):
        merge(tuned("llama", "lora").run, rows, tmp_path / "merged", tolerance=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_merged_that_has_no_adapter_or_cannot_be_compared(tuned: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no adapter to merge"):
        merge(tuned("llama", "full").run, [], tmp_path / "merged")
    with pytest.raises(ModelError, match="no held-out answer"):
        merge(tuned("llama", "lora").run, [], tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_the_divergence_is_that_of_the_definition() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log(), torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()
    facts = merging._compare([p], [q])
    by_hand = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()
    assert facts["kl_max"] == pytest.approx(float(by_hand))
    assert facts["kl_mean"] == pytest.approx(float(by_hand) / 2)
    assert facts["first_choice_equal"] == 0.5  # of a tie, the first
