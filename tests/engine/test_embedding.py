"""Vectors of a tiny BERT with random weights, pooled by hand; and of the real model where the extra is installed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from tunesmith.core.errors import ModelError
from tunesmith.engine import embedding
from tunesmith.engine.embedding import LocalEmbedder, packaged
from tunesmith.metrics.similarity import cosines

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "how", "do", "i", "reset", "it", "press", "the", "button"]
TEXTS = ["how do i reset it", "press", "", "press the button the button"]
STEPS = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
POOLING = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
NORMALIZE = {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    path = tmp_path_factory.mktemp("bert")
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **shape)).save_pretrained(path)
    return path


@pytest.fixture
def model(bert: Path, tmp_path: Path) -> Callable[..., Path]:
    """A directory with a pooling config, steps after it, and other files by name."""

    def make(pooling: dict[str, Any], *more: dict[str, str], **files: Any) -> Path:
        for file in bert.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        (tmp_path / "modules.json").write_text(json.dumps([*STEPS, POOLING, *more]))
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return make


def states(folder: Path, text: str) -> Any:
    """[tokens, width], of one text by itself."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.inference_mode():
        out = BertModel.from_pretrained(folder).eval()(**tokenizer(text, return_tensors="pt"))
    return out.last_hidden_state[0].numpy()


POOLED: list[tuple[dict[str, Any], Callable[[Any], Any]]] = [
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, lambda s: s.mean(0)),
    ({"pooling_mode_cls_token": True}, lambda s: s[0]),
    ({"pooling_mode_max_tokens": True}, lambda s: s.max(0)),
    ({"pooling_mode_mean_sqrt_len_tokens": True}, lambda s: s.sum(0) / np.sqrt(len(s))),
    ({"pooling_mode_lasttoken": True}, lambda s: s[-1]),
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, lambda s: np.concatenate([s[0], s.mean(0)])),
    ({"pooling_mode": "mean"}, lambda s: s.mean(0)),
]


@pytest.mark.parametrize(("pooling", "pooled"), POOLED, ids=[str(list(config)) for config, _ in POOLED])
def test_each_text_has_the_vector_that_it_has_by_itself(
    model: Callable[..., Path], pooling: dict[str, Any], pooled: Callable[[Any], Any]
) -> None:
    folder = model(pooling)
    vectors = LocalEmbedder(folder).embed(TEXTS)
    expected = np.stack([pooled(states(folder, text)) for text in TEXTS])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_directory_without_steps_is_pooled_by_the_mean(bert: Path) -> None:
    np.testing.assert_allclose(LocalEmbedder(bert).embed(TEXTS[:1])[0], states(bert, TEXTS[0]).mean(0), atol=1e-6)


def test_vectors_are_made_one_long_where_a_step_says_so(model: Callable[..., Path]) -> None:
    vectors = LocalEmbedder(model({"pooling_mode_mean_tokens": True}, NORMALIZE)).embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_limits_case_and_prompts_are_those_of_the_directory(model: Callable[..., Path]) -> None:
    folder = model(
        {"pooling_mode_mean_tokens": True},
        sentence_bert_config={"max_seq_length": 4, "do_lower_case": True},
        config_sentence_transformers={"prompts": {"query": "the "}, "default_prompt_name": "query"},
    )
    embedder = LocalEmbedder(folder)
    long, cut = embedder.embed(["PRESS THE BUTTON", "press"])
    np.testing.assert_allclose(long, states(folder, "the press").mean(0), atol=1e-6)
    np.testing.assert_allclose(cut, long, atol=1e-6)


def test_batches_do_not_change_a_vector(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = LocalEmbedder(bert)
    whole = embedder.embed(TEXTS * 2)
    monkeypatch.setattr(embedding, "BATCH_TOKENS", 8)
    np.testing.assert_allclose(embedder.embed(TEXTS * 2), whole, atol=1e-6)
    assert embedder.embed([]).shape == (0, 8)


@pytest.mark.parametrize(
    ("pooling", "more", "said"),
    [
        ({"pooling_mode_weightedmean_tokens": True}, [], "a pooling of weightedmean_tokens"),
        ({}, [], "a pooling of nothing"),
        ({"pooling_mode": "mean"}, [{"type": "sentence_transformers.models.Dense", "path": "2"}], "has a step Dense"),
    ],
)
def test_what_is_not_known_is_refused(
    model: Callable[..., Path], pooling: dict[str, Any], more: list[dict[str, str]], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        LocalEmbedder(model(pooling, *more))


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        LocalEmbedder(tmp_path)
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(ModelError, match=r"modules\.json: not valid JSON"):
        LocalEmbedder(tmp_path)


@pytest.mark.skipif(packaged() is None, reason="the extra similarity is not installed")
def test_the_packaged_model_gives_the_cosines_of_sentence_transformers() -> None:
    folder = packaged()
    assert folder is not None
    embedder = LocalEmbedder(folder)
    texts = ["Where can I change my password?", "The cat sat on the mat.", "", "Your liver is ill."]
    vectors = embedder.embed(["How do I reset my password?", *texts])
    # of sentence-transformers 5 on the same files: equal to the last bit
    expected = [0.78977, 0.07595, 0.06858, 0.00282]
    assert cosines(np.repeat(vectors[:1], 4, axis=0), vectors[1:]) == pytest.approx(expected, abs=1e-4)
    assert embedder.name == "all-MiniLM-L6-v2"
