"""The local engine against the plainest computation there is: one row, no padding, no cache."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from tunesmith.core.errors import ModelError
from tunesmith.engine import flat, local
from tunesmith.engine.base import Sampling, generate_both
from tunesmith.engine.local import LocalEngine
from tunesmith.model.adapter import add_lora
from tunesmith.model.load import load_model, quiet

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


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[flat.Pass]:
    """Every pass that a flat runner makes from now on."""
    seen: list[flat.Pass] = []
    plain = flat.FlatRunner._run

    def spy(self: flat.FlatRunner, module: Any, given: flat.Pass, *rest: Any, **named: Any) -> Any:
        seen.append(given)
        return plain(self, module, given, *rest, **named)

    monkeypatch.setattr(flat.FlatRunner, "_run", spy)
    return seen


def fed(passes: list[flat.Pass]) -> list[int]:
    """The tokens of each pass; the trial of a new engine, four passes, left out."""
    return [len(one.ids) for one in passes if list(one.ids[:5]) != [3, 4, 5, 6, 7] and one.lengths != [8, 12]]


def test_equal_prompts_are_computed_once_and_their_continuations_beside_them(
    llama_dir: Path, passes: list[flat.Pass]
) -> None:
    engine = open_engine(llama_dir)
    engine.score([([1, 2, 3], [4, 5]), ([1, 2, 3], [6]), ([9, 8], [7, 7, 7])])
    assert fed(passes) == [3 + 1 + 2 + 2]


def test_a_prefix_that_many_share_is_computed_once(llama_dir: Path, passes: list[flat.Pass]) -> None:
    engine = without_stops(open_engine(llama_dir))
    block = [5 + n % 90 for n in range(50)]
    prompts = [[*block, *own] for own in ([1, 2], [1, 3], [7], [8, 8, 8])]
    requests = [(prompt, end) for prompt in prompts for end in ([4, 5], [6])]
    scores = engine.score(requests)
    assert fed(passes) == [50, (2 + 2 + 1 + 3) + 4]
    for (prompt, end), score in zip(requests, scores, strict=True):
        assert score.logprobs == pytest.approx(plain_score(engine, prompt, end), abs=1e-4)
    passes.clear()
    found = engine.generate(prompts, Sampling(max_new_tokens=9))
    assert fed(passes) == [50, 2 + 2 + 1 + 3, *[4] * 8]
    assert [list(g.ids) for g in found] == [plain_greedy(engine, prompt, 9) for prompt in prompts]


def test_samples_of_one_prompt_compute_it_once(llama_dir: Path, passes: list[flat.Pass]) -> None:
    engine = without_stops(open_engine(llama_dir))
    prompt = list(range(20))
    wishes = [Sampling(max_new_tokens=4, temperature=1.0, seed=n) for n in range(3)]
    together = engine.generate([prompt] * 3, wishes)
    assert fed(passes) == [20, 3, 3, 3]
    assert together == [engine.generate([prompt], wish)[0] for wish in wishes]


def test_a_request_takes_a_freed_place_while_others_go_on(llama_dir: Path, passes: list[flat.Pass]) -> None:
    engine = without_stops(open_engine(llama_dir, batch_rows=2))
    prompts = [[1] * 20, [2] * 6, [3] * 5]
    found = engine.generate(prompts, [Sampling(max_new_tokens=n) for n in (9, 3, 4)])
    assert fed(passes) == [26, 2, 2, 1 + 5, 2, 2, 2, 1, 1]
    limits = zip(prompts, (9, 3, 4), strict=True)
    assert [list(g.ids) for g in found] == [plain_greedy(engine, prompt, n) for prompt, n in limits]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=12),
    rows=st.integers(1, 5),
    tokens=st.integers(1, 300),
)
def test_a_batch_never_holds_more_than_its_limits_and_every_request_is_answered(
    gpt2_dir: Path, sizes: list[tuple[int, int]], rows: int, tokens: int
) -> None:
    engine = without_stops(open_engine(gpt2_dir, batch_rows=rows, batch_tokens=tokens))
    seen: list[list[Any]] = []
    plain = engine._advance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_advance", lambda some, logits: seen.append(list(some)) or plain(some, logits))
        wishes = [Sampling(max_new_tokens=new) for _, new in sizes]
        found = engine.generate([[7] * prompt for prompt, _ in sizes], wishes)
    assert [len(g.ids) for g in found] == [new for _, new in sizes]
    for batch in seen:
        held = len(batch) * max(row.need for row in batch)
        assert len(batch) == 1 or (len(batch) <= rows and held <= tokens)


def test_log_probabilities_of_what_was_generated_are_those_of_scoring_it(any_model_dir: Path) -> None:
    engine = open_engine(any_model_dir)
    prompts = encode(engine, PROMPTS)
    wishes = [Sampling(max_new_tokens=9, temperature=n % 2, top_k=5, seed=n, logprobs=n != 2) for n in range(6)]
    found = engine.generate(prompts, wishes)
    scores = engine.score([(prompt, one.ids) for prompt, one in zip(prompts, found, strict=True)])
    assert found[2].logprobs is None
    for place, (one, score) in enumerate(zip(found, scores, strict=True)):
        if place != 2:
            assert one.logprobs == pytest.approx(score.logprobs, abs=1e-4)
    stop = found[0].text[1:3]
    cut = engine.generate(prompts[:1], Sampling(max_new_tokens=9, stop=(stop,), logprobs=True))[0]
    assert cut.logprobs is not None
    assert len(cut.logprobs) == len(cut.ids)


def test_a_vector_is_the_mean_of_the_last_hidden_states_at_length_one(any_model_dir: Path) -> None:
    engine = open_engine(any_model_dir)
    prompts = encode(engine, PROMPTS)
    found = engine.embed(prompts)
    with torch.no_grad():
        for vector, prompt in zip(found, prompts, strict=True):
            states = engine.model.base_model(input_ids=torch.tensor([prompt])).last_hidden_state[0].mean(0)
            assert vector.tolist() == pytest.approx((states / states.norm()).tolist(), abs=1e-5)
    assert engine.embed([]).shape == (0, found.shape[1])
    with pytest.raises(ModelError, match="prompt 1 is empty"):
        engine.embed([[1], []])


def test_a_model_that_flat_rows_do_not_suit_is_padded_and_says_the_same(any_model_dir: Path) -> None:
    engine, padded = (without_stops(open_engine(any_model_dir, batch_rows=4)) for _ in range(2))
    assert engine._flat
    padded._flat = False
    prompts = encode(engine, PROMPTS)
    wishes = [Sampling(max_new_tokens=3 * n + 2, temperature=n % 2, seed=n) for n in range(len(prompts))]
    assert padded.generate(prompts, wishes) == engine.generate(prompts, wishes)
    requests = [(prompt, end) for prompt in prompts for end in (*prompts[:3], [4], [])]
    for one, two in zip(padded.score(requests), engine.score(requests), strict=True):
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
    assert padded.embed(prompts) == pytest.approx(engine.embed(prompts), abs=1e-5)


@pytest.mark.parametrize("how", ["softcap", "state"])
def test_what_attends_in_another_way_is_told_by_trying(
    llama_dir: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(llama_dir)
    layer = engine.model.model.layers[0]
    if how == "softcap":
        plain = layer.self_attn.forward
        monkeypatch.setattr(layer.self_attn, "forward", lambda *a, **k: plain(*a, **k, softcap=30.0))
    else:  # each token is mixed with its left neighbour
        layer.register_forward_pre_hook(lambda _, given: (given[0] + given[0].roll(1, 1), *given[1:]))
    assert not flat.works_on(engine.model)


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


def tuned_engine(path: Path) -> LocalEngine:
    """An adapter that says something else than its base."""
    base = open_engine(path)
    model = add_lora(base.model, 4, 8, 0.0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    return LocalEngine(model, base.tokenizer)


def test_base_and_tuned_in_one_pass_say_what_they_say_alone(any_model_dir: Path, passes: list[flat.Pass]) -> None:
    alone, engine = open_engine(any_model_dir), tuned_engine(any_model_dir)
    block = encode(alone, [PROMPTS[3]])[0] * 3
    prompts = [*encode(alone, PROMPTS), *([*block, n] for n in range(3))]
    wishes = [Sampling(max_new_tokens=4 + n, temperature=n % 2, seed=n, logprobs=True) for n in range(len(prompts))]
    base, tuned = alone.generate(prompts, wishes), engine.generate(prompts, wishes)
    assert [g.ids for g in base] != [g.ids for g in tuned]
    passes.clear()
    together = generate_both(engine.base, engine, prompts, wishes)
    assert [[g.ids for g in some] for some in together] == [[g.ids for g in some] for some in (base, tuned)]
    for some, same in zip(together, (base, tuned), strict=True):
        for one, two in zip(some, same, strict=True):
            assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
    assert max(fed(passes)) > sum(map(len, prompts))  # both models' prompts in one flat row
    assert engine.generate(prompts, wishes) == tuned


def test_what_lies_below_an_adapter_is_the_base(any_model_dir: Path) -> None:
    alone, engine = open_engine(any_model_dir), tuned_engine(any_model_dir)
    prompts = encode(alone, PROMPTS)
    assert engine.base.generate(prompts, Sampling(8)) == alone.generate(prompts, Sampling(8))
    requests = [(prompts[0], prompts[1]), (prompts[2], prompts[3])]
    assert engine.base.score(requests) == alone.score(requests)
    assert engine.score(requests, adapted=[True, False])[1].logprobs == pytest.approx(alone.score(requests)[1].logprobs)
    assert engine.base.embed(prompts).tolist() == alone.embed(prompts).tolist()
    assert engine.embed(prompts).tolist() != alone.embed(prompts).tolist()
    assert engine.base.context == engine.context
    assert engine.has_base
    assert not alone.has_base
    with pytest.raises(ModelError, match="no base below it"):
        alone.base.generate(prompts, Sampling(8))


def test_an_adapter_that_cannot_be_switched_by_row_is_asked_twice(llama_dir: Path) -> None:
    base = open_engine(llama_dir)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], use_dora=True, init_lora_weights=False)
    with quiet():
        engine = LocalEngine(get_peft_model(base.model, config), base.tokenizer)
    prompts = encode(engine, PROMPTS)
    apart = open_engine(llama_dir).generate(prompts, Sampling(8)), engine.generate(prompts, Sampling(8))
    assert engine.generate_both(prompts, Sampling(8)) == apart
    with pytest.raises(ModelError, match="share one batch"):
        engine.score([([1], [2]), ([1], [2])], adapted=[True, False])


def test_what_peft_cannot_take_off_has_no_base_below_it(llama_dir: Path) -> None:
    base = open_engine(llama_dir)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], bias="all")
    with quiet():
        engine = LocalEngine(get_peft_model(base.model, config), base.tokenizer)
    assert not engine.has_base
    with pytest.raises(ModelError, match="no base below it"):
        engine.base.generate([[1]], Sampling(8))


def test_two_engines_of_their_own_answer_one_after_the_other(gpt2_dir: Path, llama_dir: Path) -> None:
    one, two = open_engine(gpt2_dir), open_engine(llama_dir)
    found = generate_both(one, two, [[1, 2]], Sampling(5))
    assert found == (one.generate([[1, 2]], Sampling(5)), two.generate([[1, 2]], Sampling(5)))


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
