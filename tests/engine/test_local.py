"""The local engine against the plainest computation there is: one row, no padding, no cache."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import ModelError
from tunesmith.engine import local
from tunesmith.engine.base import Sampling
from tunesmith.engine.local import LocalEngine
from tunesmith.model.adapter import add_lora
from tunesmith.model.load import load_model

PROMPTS = ["Which colour", "def add(first, second):", "a", "How do I reset my password? Open the", "The sky is", "Q: x"]


class PlainTokenizer:
    """What the engine needs of a tokenizer, straight from the file."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoTokenizer

        self.inner = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.eos_id = AutoTokenizer.from_pretrained(path).eos_token_id

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        return self.inner.decode(list(ids), skip_special_tokens=not keep_special)


def open_engine(path: Path, **limits: int) -> LocalEngine:
    return LocalEngine(load_model(path, torch.float32), PlainTokenizer(path), **limits)


def encode(engine: LocalEngine, texts: Sequence[str]) -> list[list[int]]:
    return [engine.tokenizer.encode(text) for text in texts]


@torch.no_grad()
def plain_greedy(engine: LocalEngine, prompt: Sequence[int], limit: int) -> list[int]:
    ids = list(prompt)
    for _ in range(limit):
        new = int(engine.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if new in engine.stop_ids:
            break
        ids.append(new)
    return ids[len(prompt) :]


@torch.no_grad()
def plain_score(engine: LocalEngine, prompt: Sequence[int], end: Sequence[int]) -> list[float]:
    logits = engine.model(input_ids=torch.tensor([[*prompt, *end[:-1]]]), use_cache=False).logits[0].log_softmax(-1)
    return [float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(end)]


def without_stops(engine: LocalEngine) -> LocalEngine:
    """Random models stop by chance; most tests want full length."""
    engine.stop_ids = frozenset()
    return engine


def test_batched_greedy_text_is_that_of_one_row_without_padding_or_cache(any_model_dir: Path) -> None:
    engine = open_engine(any_model_dir, batch_rows=8)
    prompts = encode(engine, PROMPTS)
    found = engine.generate(prompts, Sampling(max_new_tokens=24))
    assert [list(g.ids) for g in found] == [plain_greedy(engine, prompt, 24) for prompt in prompts]
    assert [g.text for g in found] == [engine.tokenizer.decode(g.ids) for g in found]
    assert [g.finish for g in found] == ["length" if len(g.ids) == 24 else "stop" for g in found]


@pytest.mark.parametrize("limits", [{"batch_rows": 1}, {"batch_rows": 2}, {"batch_rows": 64}, {"batch_tokens": 90}])
def test_the_batch_size_does_not_change_text_or_scores(any_model_dir: Path, limits: dict[str, int]) -> None:
    engine, other = open_engine(any_model_dir, batch_rows=8), open_engine(any_model_dir, **limits)
    prompts = encode(engine, PROMPTS)
    wishes = [Sampling(max_new_tokens=3 * n + 2, temperature=n % 2, seed=n) for n in range(len(prompts))]
    assert other.generate(prompts, wishes) == engine.generate(prompts, wishes)
    requests = [(prompt, end) for prompt in prompts for end in prompts[:3]]
    for one, two in zip(other.score(requests), engine.score(requests), strict=True):
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)


def test_a_sample_depends_on_its_seed_and_not_on_its_batch_mates(gpt2_dir: Path) -> None:
    engine = without_stops(open_engine(gpt2_dir))
    prompt, *mates = encode(engine, PROMPTS)
    warm = [Sampling(max_new_tokens=16, temperature=1.0, seed=seed) for seed in (1, 2)]
    alone = engine.generate([prompt], warm[0])[0]
    together = engine.generate([mates[0], prompt, mates[2], prompt], [warm[1], warm[0], warm[1], warm[1]])
    assert together[1] == alone
    assert together[3] != alone
    assert engine.generate([prompt], Sampling(max_new_tokens=16, temperature=1.0, top_k=1))[0].ids == tuple(
        plain_greedy(engine, prompt, 16)
    )


def test_every_row_has_its_own_limit_and_results_keep_the_order_of_the_prompts(llama_dir: Path) -> None:
    engine = without_stops(open_engine(llama_dir))
    prompts = encode(engine, PROMPTS)
    limits = [5, 0, 9, 1, 7, 3]
    found = engine.generate(prompts, [Sampling(max_new_tokens=n) for n in limits])
    assert [len(g.ids) for g in found] == limits
    assert [list(g.ids) for g in found] == [
        plain_greedy(engine, prompt, n) for prompt, n in zip(prompts, limits, strict=True)
    ]
    assert found[1].text == ""
    assert found[1].finish == "length"
    assert engine.generate([], Sampling()) == []


def test_a_stop_token_ends_the_text_and_is_in_neither_text_nor_ids(any_model_dir: Path) -> None:
    engine = without_stops(open_engine(any_model_dir))
    prompt = engine.tokenizer.encode("Which colour")
    free = plain_greedy(engine, prompt, 12)
    place = next(n for n in range(1, 12) if free[n] not in free[:n])
    stopped = LocalEngine(engine.model, engine.tokenizer, stop_ids=[free[place]])
    found = stopped.generate([prompt], Sampling(max_new_tokens=12))[0]
    assert list(found.ids) == free[:place]
    assert found.finish == "stop"


def test_stop_tokens_come_from_generation_config_and_tokenizer(qwen_dir: Path) -> None:
    engine = open_engine(qwen_dir)
    assert engine.stop_ids == {engine.tokenizer.eos_id}
    engine.model.generation_config.eos_token_id = [7, 9]
    assert LocalEngine(engine.model, engine.tokenizer).stop_ids == {7, 9, engine.tokenizer.eos_id}
    engine.model.generation_config.eos_token_id = None
    assert LocalEngine(engine.model, engine.tokenizer).stop_ids == {engine.tokenizer.eos_id}


def test_an_empty_thought_is_in_the_ids_and_not_in_the_text_and_no_stop_string_ends_it(
    neox_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = without_stops(open_engine(neox_dir))
    said = engine.tokenizer.encode("<think>\n\n</think>\n\nYes, it is.\n\nNo.")
    for stops, text in (((), "Yes, it is.\n\nNo."), (("\n\n",), "Yes, it is.")):
        turns = iter(said)
        monkeypatch.setattr(local, "next_ids", lambda *_, turns=turns: [next(turns)])
        (found,) = engine.generate([[1, 2]], Sampling(max_new_tokens=len(said), stop=stops))
        assert found.text == text
        assert engine.tokenizer.decode(found.ids) == f"<think>\n\n</think>\n\n{text}"


@pytest.mark.parametrize("start", [3, 6])
def test_a_stop_string_across_token_borders_cuts_the_text_before_it(neox_dir: Path, start: int) -> None:
    engine = without_stops(open_engine(neox_dir))
    prompt = engine.tokenizer.encode("How do I")
    free = engine.generate([prompt], Sampling(max_new_tokens=30))[0].text
    stop = free[start : start + 4]
    cut = free.index(stop)
    found = engine.generate([prompt], Sampling(max_new_tokens=30, stop=("never there", stop)))[0]
    assert found.text == free[:cut]
    assert found.finish == "stop"
    assert engine.tokenizer.decode(found.ids).startswith(found.text)
    assert not engine.tokenizer.decode(found.ids[:-1]).startswith(found.text) or not found.ids


def test_the_limit_is_lowered_to_what_the_context_holds(any_model_dir: Path) -> None:
    engine = without_stops(open_engine(any_model_dir))
    short, long = [5] * 120, [9] * 127
    found = engine.generate([short, long, [3]], Sampling(max_new_tokens=40))
    assert [len(g.ids) for g in found] == [8, 1, 40]
    assert list(found[0].ids) == plain_greedy(engine, short, 8)


def test_a_prompt_without_room_or_tokens_is_named_by_its_index(gpt2_dir: Path) -> None:
    engine = open_engine(gpt2_dir)
    with pytest.raises(ModelError, match=r"prompt 1 does not fit: 129 tokens(.|\n)*at most 128"):
        engine.generate([[1], [1] * 128], Sampling())
    with pytest.raises(ModelError, match="prompt 0 is empty"):
        engine.generate([[]], Sampling())
    with pytest.raises(ModelError, match="prompt 0 does not fit: 129"):
        engine.score([([1] * 100, [1] * 30)])
    with pytest.raises(ModelError, match="prompt 1 is empty"):
        engine.score([([1], [2]), ([], [2])])


def test_scores_are_those_of_one_row_without_padding_or_cache(any_model_dir: Path) -> None:
    engine = open_engine(any_model_dir)
    prompts = encode(engine, PROMPTS)
    requests: list[tuple[list[int], list[int]]] = [(p, e) for p in prompts[:3] for e in (*prompts[3:], [4], [])]
    requests += [(prompts[0], prompts[1]), ([5] * 60, [6] * 69), ([7] * 127, [8, 9])]
    for (prompt, end), score in zip(requests, engine.score(requests), strict=True):
        assert score.logprobs == pytest.approx(plain_score(engine, prompt, end), abs=1e-4)


def test_equal_prompts_of_a_batch_are_computed_once(llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(llama_dir)
    seen = []
    plain = engine._forward

    def spy(ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        seen.append(tuple(ids.shape))
        return plain(ids, *rest, **named)

    monkeypatch.setattr(engine, "_forward", spy)
    engine.score([([1, 2, 3], [4, 5]), ([1, 2, 3], [6]), ([9, 8], [7, 7, 7])])
    assert seen == [(2, 3), (3, 2)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=12),
    rows=st.integers(1, 5),
    tokens=st.integers(1, 200),
    new=st.integers(1, 100),
)
def test_batches_hold_every_row_once_within_the_limits(
    gpt2_dir: Path, sizes: list[tuple[int, int]], rows: int, tokens: int, new: int
) -> None:
    engine = LocalEngine.__new__(LocalEngine)
    engine.batch_rows, engine.batch_tokens = rows, tokens
    runs = list(engine._batches(sizes, new))
    assert [place for start, end in runs for place in range(start, end)] == list(range(len(sizes)))
    for start, end in runs:
        prompt, longest = (max(size[side] for size in sizes[start:end]) for side in (0, 1))
        count = end - start
        assert count == 1 or (count <= rows and count * (prompt + longest) <= tokens and count * longest <= new)


def test_dropout_is_off_inside_and_the_mode_is_restored(gpt2_dir: Path) -> None:
    engine = open_engine(gpt2_dir)
    prompts = encode(engine, PROMPTS)
    quiet = engine.generate(prompts, Sampling(max_new_tokens=8))
    engine.model.train()
    assert engine.generate(prompts, Sampling(max_new_tokens=8)) == quiet
    assert engine.model.training
    with pytest.raises(ModelError):
        engine.generate([[]], Sampling())
    assert engine.model.training
    engine.model.eval()
    engine.score([([1], [2])])
    assert not engine.model.training


def test_a_model_can_be_trained_on_after_the_engine_used_it(any_model_dir: Path) -> None:
    engine = open_engine(any_model_dir)
    engine.generate([[5, 6]], Sampling(max_new_tokens=2))
    ids = torch.tensor([[1, 2, 3]])
    engine.model(input_ids=ids, labels=ids).loss.backward()


def test_an_adapter_is_used_and_a_fresh_one_changes_nothing(any_model_dir: Path) -> None:
    base = open_engine(any_model_dir)
    prompts = encode(base, PROMPTS)
    before = base.generate(prompts, Sampling(max_new_tokens=8))
    model = add_lora(base.model, 4, 8, 0.5)
    engine = LocalEngine(model, base.tokenizer)
    assert engine.generate(prompts, Sampling(max_new_tokens=8)) == before
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    assert engine.generate(prompts, Sampling(max_new_tokens=8)) != before


def test_a_sliding_window_smaller_than_the_prompt_batches_like_one_row(make_model_dir: Callable[..., Path]) -> None:
    changes = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
    engine = without_stops(open_engine(make_model_dir("qwen", **changes)))
    assert "sliding_attention" in engine.model.config.layer_types
    prompts = encode(engine, PROMPTS)
    limits = [3, 12, 7, 12, 5, 9]
    found = engine.generate(prompts, [Sampling(max_new_tokens=n) for n in limits])
    assert [list(g.ids) for g in found] == [
        plain_greedy(engine, prompt, n) for prompt, n in zip(prompts, limits, strict=True)
    ]
    requests = [(prompts[0], prompts[3]), (prompts[3], prompts[0]), (prompts[3], prompts[1])]
    for (prompt, end), score in zip(requests, engine.score(requests), strict=True):
        assert score.logprobs == pytest.approx(plain_score(engine, prompt, end), abs=1e-4)


def test_a_diverged_model_is_an_error_and_not_nonsense(gpt2_dir: Path) -> None:
    engine = open_engine(gpt2_dir)
    engine.model.transformer.ln_f.weight.data.fill_(torch.nan)
    with pytest.raises(ModelError, match="diverged"):
        engine.generate([[1]], Sampling())
    with pytest.raises(ModelError, match="diverged"):
        engine.score([([1], [2])])
