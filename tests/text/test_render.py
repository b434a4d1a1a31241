"""The renderer against templates in the shapes found in the wild, and against transformers' own chat templates."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.records import Message, Row, pair
from tunesmith.text.render import Example, Renderer, check_example
from tunesmith.text.tokenizer import Tokenizer, train_bpe

TEXTS = [
    "How do I reset my password? Open the settings, choose Account, and press Reset.",
    "What is the capital of France? The capital of France is Paris. assistant user system model",
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'].strip()"
    " + ' [/INST]' }}{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' + '\n' }}{% endif %}{% endfor %}"
)
QWEN3 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set text = m.content.split('</think>')[-1].lstrip('\n') if '</think>' in m.content else m.content %}"
    "{{ '<|im_start|>assistant\n' }}{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ text + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}"
    "{% elif m['role'] == 'system' %}{{ m['content'] + '\n\n' }}"
    "{% else %}{{ '<|Assistant|>' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}"
)
GLM = (
    "{{ '[gMASK]<sop>' }}{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """One kind of template: its Jinja, its control tokens, what ends an answer, what stands before and after it."""

    template: str
    control: tuple[str, ...]
    stop: str
    eos: str = "</s>"
    bos: str | None = "<s>"
    swallow: tuple[str, ...] = ()  # control tokens that take the white space after them
    soft: tuple[str, ...] = ()  # added tokens that are not special
    lead: str = ""
    gap: str = ""
    prefix: bool = True
    special: dict[str, Any] = field(default_factory=dict)


SHAPES = {
    "chatml": Shape(CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", eos="<|im_end|>", bos=None),
    "chatml-other-eos": Shape(CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", eos="<|endoftext|>", bos=None),
    "chatml-bos": Shape(CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", "<|im_end|>", "<|im_start|>"),  # SmolLM2
    "llama3": Shape(
        LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>", "<|end|>", "<|begin|>"
    ),
    "llama2": Shape(LLAMA2, (), "</s>", lead=" ", gap=" "),
    "gemma": Shape(GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>", "<eos>", "<bos>"),
    "phi3": Shape(
        PHI3,
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
        eos="<|endoftext|>",
        swallow=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "zephyr": Shape(ZEPHYR, (), "</s>"),
    "qwen3": Shape(
        QWEN3,
        ("<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        eos="<|im_end|>",
        bos=None,
        soft=("<think>", "</think>"),
        lead="<think>\n\n</think>\n\n",
        prefix=False,
    ),
    "mistral": Shape(MISTRAL, ("[INST]", "[/INST]"), "</s>"),
    "deepseek": Shape(DEEPSEEK, ("<|User|>", "<|Assistant|>"), "<|eos|>", "<|eos|>", "<|bos|>"),
}
SINGLE = (Message("user", "How do I reset it?"), Message("assistant", "Open the settings."))
MULTI = (*SINGLE, Message("user", "And then?"), Message("assistant", "Press Reset, and wait."))


def byte_level(shape: Shape) -> Tokenizer:
    names = [n for n in (shape.bos, shape.eos) if n is not None]
    backend = train_bpe(TEXTS, 300).backend
    backend.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    marked = [AddedToken(n, rstrip=n in shape.swallow, special=True, normalized=False) for n in shape.control]
    backend.add_special_tokens(marked)
    backend.add_tokens([AddedToken(n, special=False, normalized=False) for n in shape.soft])
    config = {"eos_token": shape.eos, "bos_token": shape.bos, "tokenizer_class": "PreTrainedTokenizerFast"}
    return Tokenizer(backend, {k: v for k, v in config.items() if v is not None}, shape.template)


def sentencepiece(kind: str, template: str, control: tuple[str, ...] = ()) -> Tokenizer:
    """A SentencePiece-like tokenizer whose vocabulary holds <s> and </s> as pieces, in its three ways of marking."""
    if kind == "unigram":
        backend = tokenizers.Tokenizer(models.Unigram())
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=200,
            special_tokens=["<unk>", "<s>", "</s>"],
            unk_token="<unk>",
            initial_alphabet=list("<>/|[]_\n" + "abcdefghijklmnopqrstuvwxyzSINTREP"),
            show_progress=False,
        )
    else:
        backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        alphabet = list("<>/|[]_\n" + "abcdefghijklmnopqrstuvwxyzSINTREP")
        trainer = trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))],
            initial_alphabet=alphabet,
            show_progress=False,
        )
    if kind == "prepend":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=kind == "unigram")
    backend.train_from_iterator(TEXTS * 4, trainer)
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = spec["added_tokens"][:3]  # as in the wild, the bytes are ordinary pieces
    backend = tokenizers.Tokenizer.from_str(json.dumps(spec))
    if kind == "prepend":
        rest = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        backend.decoder = decoders.Sequence(rest)
    else:
        backend.decoder = decoders.Metaspace(prepend_scheme="first")
    extra = [AddedToken(n, special=True, normalized=False) for n in control]
    backend.add_special_tokens(extra)
    single = [("<s>", backend.token_to_id("<s>"))]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=single)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return Tokenizer(backend, {**names, "tokenizer_class": "PreTrainedTokenizerFast"}, template)


def trained_text(renderer: Renderer, example: Example) -> str:
    ids = [i for i, trained in zip(example.ids, example.mask, strict=True) if trained]
    return renderer.tokenizer.decode(ids, keep_special=True)


def reloaded(renderer: Renderer, folder: Path) -> Any:
    from transformers import AutoTokenizer

    renderer.tokenizer.save(folder)
    return AutoTokenizer.from_pretrained(folder)


def theirs(tokenizer: Any, messages: tuple[Message, ...], generate: bool = False) -> list[int]:
    plain = [m.to_json() for m in messages]
    ids: list[int] = tokenizer.apply_chat_template(plain, add_generation_prompt=generate, return_dict=False)
    return ids


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


def test_the_ids_are_those_of_transformers_for_every_shape_of_template(shape: Shape, tmp_path: Path) -> None:
    renderer = Renderer(byte_level(shape))
    other = reloaded(renderer, tmp_path)
    assert renderer.render(Row(SINGLE))[0].ids == theirs(other, SINGLE)
    assert renderer.prompt(SINGLE[:1]) == theirs(other, SINGLE[:1], generate=True)
    assert renderer.prompt(MULTI[:3]) == theirs(other, MULTI[:3], generate=True)
    assert renderer.render(Row(MULTI))[-1].ids == theirs(other, MULTI)


@pytest.mark.parametrize("template", ["auto", "plain", "alpaca"])
def test_the_ids_are_those_of_transformers_for_every_family(any_model_dir: Path, template: str, tmp_path: Path) -> None:
    renderer = Renderer(Tokenizer.load(any_model_dir), template)
    other = reloaded(renderer, tmp_path)
    assert renderer.render(Row(SINGLE))[0].ids == theirs(other, SINGLE)
    assert renderer.prompt(SINGLE[:1]) == theirs(other, SINGLE[:1], generate=True)
    assert renderer.render(Row(MULTI))[0].ids == theirs(other, MULTI)
    assert renderer.prompt(MULTI[:3]) == theirs(other, MULTI[:3], generate=True)


@pytest.mark.parametrize("kind", ["unigram", "first", "prepend"])
@pytest.mark.parametrize("name", ["llama2", "mistral", "zephyr", "deepseek"])
def test_the_ids_are_those_of_transformers_where_words_carry_space_marks(kind: str, name: str, tmp_path: Path) -> None:
    template = SHAPES[name].template
    renderer = Renderer(sentencepiece(kind, template, SHAPES[name].control if name != "mistral" else ()))
    other = reloaded(renderer, tmp_path)
    assert renderer.prompt(SINGLE[:1]) == theirs(other, SINGLE[:1], generate=True)
    whole = renderer.render(Row(SINGLE))[0].ids
    if name in ("llama2", "deepseek"):  # elsewhere no token ends where the answer begins
        assert whole == theirs(other, SINGLE)
        assert renderer.render(Row(MULTI))[0].ids == theirs(other, MULTI)
    again = renderer.tokenizer.decode(whole, keep_special=True)
    if kind != "prepend":  # which writes a space after each control token, as transformers does with it
        assert again == renderer.template.render([m.to_json() for m in SINGLE], generate=False)


@pytest.mark.parametrize("messages", [SINGLE, MULTI], ids=["single", "multi"])
def test_exactly_the_answers_and_their_stop_tokens_are_trained(shape: Shape, messages: tuple[Message, ...]) -> None:
    renderer = Renderer(byte_level(shape))
    examples = renderer.render(Row(messages))
    answers = [m.content for m in messages if m.role == "assistant"]
    expected = [f"{shape.lead}{answer}{shape.gap}{shape.stop}" for answer in answers]
    assert len(examples) == (1 if shape.prefix else len(answers))
    assert [trained_text(renderer, e) for e in examples] == (expected if len(examples) > 1 else ["".join(expected)])
    assert renderer.stop_ids == (renderer.tokenizer.backend.token_to_id(shape.stop),)
    assert [check_example(e, renderer) for e in examples] == [None] * len(examples)


def test_every_prompt_that_is_served_is_how_a_trained_sequence_begins(shape: Shape) -> None:
    renderer = Renderer(byte_level(shape))
    examples = renderer.render(Row(MULTI))
    for place, n in enumerate(i for i, m in enumerate(MULTI) if m.role == "assistant"):
        prompt, ids = renderer.prompt(MULTI[:n]), examples[min(place, len(examples) - 1)].ids
        assert ids[: len(prompt)] == prompt


@pytest.mark.parametrize(("train_on", "count"), [("completion", 2), ("last", 1), ("all", 2)])
def test_train_on_says_which_tokens_are_trained(shape: Shape, train_on: Any, count: int) -> None:
    renderer = Renderer(byte_level(shape), train_on=train_on)
    examples = renderer.render(Row(MULTI))
    assert [check_example(e, renderer) for e in examples] == [None] * len(examples)
    stop = renderer.stop_ids[0]
    trained = [[i for i, t in zip(e.ids, e.mask, strict=True) if t] for e in examples]
    assert all(ids[-1] == stop for ids in trained)
    if train_on == "all":
        assert all(all(e.mask[: len(ids)]) for e, ids in zip(examples, trained, strict=True))
        assert "And then?" in renderer.tokenizer.decode(trained[-1])
    else:
        assert sum(ids.count(stop) for ids in trained) == count
        assert MULTI[3].content in renderer.tokenizer.decode(trained[-1])


def test_no_sequence_holds_two_bos_in_a_row(shape: Shape) -> None:
    renderer = Renderer(byte_level(shape))
    bos = renderer.tokenizer.bos_id
    for example in renderer.render(Row(SINGLE)):
        assert bos is None or (bos, bos) not in zip(example.ids, example.ids[1:], strict=False)


def test_a_template_that_writes_bos_twice_is_caught_before_training() -> None:
    shape = SHAPES["llama3"]
    renderer = Renderer(byte_level(Shape("{{ bos_token }}" + shape.template, *list(shape.__dict__.values())[1:5])))
    assert check_example(renderer.render(Row(SINGLE))[0], renderer) == "it holds two BOS tokens in a row"


@pytest.mark.parametrize(("name", "count"), [("llama2", 2), ("chatml-bos", 4)])
def test_a_bos_before_every_turn_is_as_the_template_wants_it(name: str, count: int) -> None:
    renderer = Renderer(byte_level(SHAPES[name]))
    example = renderer.render(Row(MULTI))[0]
    assert example.ids.count(renderer.tokenizer.bos_id) == count
    assert check_example(example, renderer) is None


def test_the_stop_token_that_the_next_role_writes_is_a_clear_error() -> None:
    shape = Shape(GLM, ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"), "<|user|>")
    with pytest.raises(ModelError, match="writes no stop token after an answer"):
        Renderer(byte_level(shape))


def test_answers_that_only_stop_when_they_are_last_are_trained_as_last_ones() -> None:
    template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
    )
    renderer = Renderer(byte_level(Shape(template, ("<|user|>", "<|assistant|>"), "</s>")))
    found = [trained_text(renderer, example) for example in renderer.render(Row(MULTI))]
    assert found == ["Open the settings.</s>", "Press Reset, and wait.</s>"]


def test_a_generation_prompt_that_is_not_how_answers_begin_is_a_clear_error() -> None:
    template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|bot|>' }}{% endif %}"
    )
    with pytest.raises(ModelError, match="generation prompt is not how it renders an answer"):
        Renderer(byte_level(Shape(template, ("<|user|>", "<|assistant|>", "<|bot|>"), "</s>"))).render(Row(SINGLE))


@pytest.mark.parametrize("name", ["mistral", "gemma"])
def test_a_system_message_is_folded_into_the_first_question_where_the_template_takes_none(name: str) -> None:
    renderer = Renderer(byte_level(SHAPES[name]))
    folded = (Message("user", "Be brief.\n\nHow do I reset it?"), SINGLE[1])
    row = Row((Message("system", "Be brief."), *SINGLE))
    assert renderer.render(row)[0].ids == renderer.render(Row(folded))[0].ids
    assert renderer.prompt(row.prompt) == renderer.prompt(folded[:1])


def test_a_template_that_silently_drops_the_system_message_gets_it_folded_in() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' or m.role == 'assistant' %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    shape = Shape(template, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", "<|im_end|>", None)
    renderer = Renderer(byte_level(shape))
    ids = renderer.render(Row((Message("system", "Be brief."), *SINGLE)))[0].ids
    assert "Be brief.\n\nHow do I" in renderer.tokenizer.decode(ids)
    with pytest.raises(DataError, match="does not write the content of a message of the role tool"):
        renderer.render(Row((SINGLE[0], Message("tool", "42"), SINGLE[1])))


def test_a_system_message_before_an_answer_does_not_become_one_text_with_it() -> None:
    renderer = Renderer(byte_level(SHAPES["mistral"]))
    row = Row((Message("system", "Greet."), Message("assistant", "Hello."), *SINGLE))
    assert trained_text(renderer, renderer.render(row)[0]) == "Hello.</s>Open the settings.</s>"


def test_a_system_message_that_the_template_takes_stays_its_own_turn(shape: Shape) -> None:
    renderer = Renderer(byte_level(shape))
    row = Row((Message("system", "Be brief."), *SINGLE))
    example = renderer.render(row)[-1]
    assert "Be brief." in renderer.tokenizer.decode(example.ids)
    assert trained_text(renderer, example) == f"{shape.lead}Open the settings.{shape.gap}{shape.stop}"


def test_roles_in_a_bad_order_are_the_rows_fault() -> None:
    renderer = Renderer(byte_level(SHAPES["mistral"]))
    with pytest.raises(DataError, match="refuses the roles user, user"):
        renderer.render(Row((SINGLE[0], *SINGLE)))


def test_white_space_that_the_template_strips_is_stripped_in_training_and_serving() -> None:
    renderer = Renderer(byte_level(SHAPES["gemma"]))
    loose = (Message("user", "  How do I reset it?\n"), Message("assistant", " Open the settings. "))
    assert renderer.render(Row(loose))[0].ids == renderer.render(Row(SINGLE))[0].ids
    assert renderer.prompt(loose[:1]) == renderer.prompt(SINGLE[:1])


def test_a_template_may_strip_one_role_and_not_the_other() -> None:
    renderer = Renderer(byte_level(SHAPES["llama2"]))
    row = Row((Message("system", " Be brief. \n"), Message("user", " Why? "), Message("assistant", " So. ")))
    text = renderer.tokenizer.decode(renderer.render(row)[0].ids, keep_special=True)
    assert text == "<s>[INST] <<SYS>>\n Be brief. \n\n<</SYS>>\n\nWhy? [/INST] So. </s>"


def test_a_row_that_the_template_would_rewrite_is_refused() -> None:
    renderer = Renderer(byte_level(SHAPES["qwen3"]))
    with pytest.raises(DataError, match="rewrites this row's text"):
        renderer.render(pair("Why?", "<think>\nHm.\n</think>\n\nBecause."))
    first = (SINGLE[0], Message("assistant", "a</think>b"), *MULTI[2:])
    with pytest.raises(DataError, match="rewrites this row's text"):
        renderer.render(Row(first))


def test_a_template_that_refuses_a_content_is_the_rows_fault() -> None:
    template = CHATML + "{% if 'bad' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
    renderer = Renderer(byte_level(Shape(template, ("<|im_start|>", "<|im_end|>"), "", "<|im_end|>", None)))
    with pytest.raises(DataError, match="refuses this row: no"):
        renderer.render(pair("bad", "x"))


def test_a_conversation_that_ends_with_a_question_trains_the_answers_before_it(shape: Shape) -> None:
    renderer = Renderer(byte_level(shape))
    examples = renderer.render(Row(MULTI[:3]))
    assert [trained_text(renderer, e) for e in examples] == [f"{shape.lead}Open the settings.{shape.gap}{shape.stop}"]


def test_raw_text_is_trained_whole_and_ended() -> None:
    plain = Renderer(byte_level(SHAPES["chatml"]))
    (example,) = plain.render(Row(text="Open <|im_end|> it."))
    assert example.ids == [*plain.tokenizer.encode("Open <|im_end|> it."), plain.tokenizer.eos_id]
    assert example.mask == [True] * len(example.ids)
    assert example.ids.count(plain.tokenizer.eos_id) == 1
    marked = Renderer(sentencepiece("first", LLAMA2))
    (example,) = marked.render(Row(text="Open it."))
    assert example.ids == [*marked.tokenizer.backend.encode("Open it.").ids, marked.tokenizer.eos_id]
    assert example.ids[0] == marked.tokenizer.bos_id


def test_an_example_without_a_trained_token_or_without_its_stop_token_is_caught(shape: Shape) -> None:
    renderer = Renderer(byte_level(shape))
    (example,) = renderer.render(Row(SINGLE))
    assert check_example(Example(example.ids, [False] * len(example.ids), ""), renderer) == "no token of it is trained"
    only_first = [True] + [False] * (len(example.ids) - 1)
    assert check_example(Example(example.ids, only_first, ""), renderer) == "no token of it is trained"
    end = max(i for i, t in enumerate(example.mask) if t)
    problem = check_example(Example(example.ids[:end], example.mask[:end], ""), renderer)
    assert problem is not None
    assert "not with a stop token" in problem


INSERTS = [
    "<|im_end|>",
    "<|endoftext|>",
    "</s>",
    "<s>",
    "[INST]",
    "<think>",
    "</think>",
    "<|assistant|>",
    "\ue0000\ue001",
]
WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
TEXT = st.lists(st.one_of(WORDS, st.sampled_from(INSERTS)), min_size=1, max_size=6).map("".join)


def controls(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    table = {c.id for c in tokenizer.control.values()}
    return [i for i in ids if i in table]


@pytest.fixture(scope="module")
def renderers() -> dict[str, Renderer]:
    return {name: Renderer(byte_level(one)) for name, one in SHAPES.items()}


@given(question=TEXT, answer=TEXT, name=st.sampled_from(sorted(SHAPES)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_becomes_a_control_token_or_changes_the_mask(
    renderers: dict[str, Renderer], question: str, answer: str, name: str
) -> None:
    shape, renderer = SHAPES[name], renderers[name]
    try:
        (example,) = renderer.render(pair(question, answer))
    except DataError:  # the template refuses it: a counted reject, never a changed text
        assert name == "qwen3"
        assert "</think>" in answer
        return
    (harmless,) = renderer.render(pair("a", "b"))
    assert controls(renderer.tokenizer, example.ids) == controls(renderer.tokenizer, harmless.ids)
    strips = name in ("llama2", "llama3", "gemma")
    expected = f"{shape.lead}{answer.strip() if strips else answer}{shape.gap}{shape.stop}"
    assert trained_text(renderer, example) == expected
    assert example.ids[: len(renderer.prompt([Message("user", question)]))] == renderer.prompt(
        [Message("user", question)]
    )


@pytest.mark.parametrize("kind", ["unigram", "first", "prepend"])
@given(question=TEXT, answer=TEXT)
@settings(max_examples=60, deadline=None)
def test_no_content_becomes_a_control_token_where_the_vocabulary_holds_its_string(
    kind: str, question: str, answer: str
) -> None:
    renderer = MARKED[kind]
    (example,) = renderer.render(pair(question, answer))
    unknown = renderer.tokenizer.backend.token_to_id("<unk>")
    found = [i for i in controls(renderer.tokenizer, example.ids) if i != unknown]
    names = [renderer.tokenizer.backend.id_to_token(i) for i in found]
    assert names == ["<s>", "</s>"]


MARKED = {kind: Renderer(sentencepiece(kind, LLAMA2)) for kind in ("unigram", "first", "prepend")}


def test_pieces_inside_a_sequence_get_no_space_mark() -> None:
    renderer = MARKED["unigram"]
    tokens = [renderer.tokenizer.backend.id_to_token(i) for i in renderer.render(pair("Who?", "Paris"))[0].ids]
    assert "".join(tokens) == "<s>[INST]▁Who?▁[/INST]▁Paris▁</s>"


def test_the_date_in_a_template_stands_still() -> None:
    template = "{{ strftime_now('%d %b %Y') }}|{{ date_string }}|" + CHATML
    renderer = Renderer(byte_level(Shape(template, ("<|im_start|>", "<|im_end|>"), "", "<|im_end|>", None)))
    assert renderer.prompt_text(SINGLE[:1]).startswith("26 Jul 2024|26 Jul 2024|<|im_start|>user")


def test_the_hash_names_template_and_tokenizer_and_nothing_else(qwen_dir: Path, tmp_path: Path) -> None:
    load: Callable[[], Tokenizer] = lambda: Tokenizer.load(qwen_dir)  # noqa: E731
    first = Renderer(load()).hash
    assert Renderer(load()).hash == first
    assert Renderer(load(), train_on="all").hash == first
    changed = [Renderer(load(), "plain").hash, Renderer(load(), "alpaca").hash]
    more = load()
    more.backend.add_tokens(["zzz"])
    changed.append(Renderer(more).hash)
    assert len({first, *changed}) == 4
    Renderer(load()).tokenizer.save(tmp_path)
    assert Renderer(Tokenizer.load(tmp_path)).hash == first
    code = (
        "import sys; from pathlib import Path; from tunesmith.text.render import Renderer;"
        "from tunesmith.text.tokenizer import Tokenizer; print(Renderer(Tokenizer.load(Path(sys.argv[1]))).hash)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(qwen_dir)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == first


def test_templates_with_windows_line_ends_have_the_same_hash_when_saved_and_read_again(tmp_path: Path) -> None:
    shape = SHAPES["chatml"]
    tokenizer = byte_level(shape)
    tokenizer.use_template("{# a #}\r\n" + CHATML)
    renderer = Renderer(tokenizer)
    renderer.tokenizer.save(tmp_path)
    assert Renderer(Tokenizer.load(tmp_path)).hash == renderer.hash


@given(st.lists(st.sampled_from(["user", "assistant"]), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_any_order_of_turns_trains_each_answer_once(roles: list[str]) -> None:
    renderer = ANY_ORDER
    row = Row(tuple(Message(role, f"text {i}") for i, role in enumerate(roles)))
    expected = "".join(f"{m.content}<|im_end|>" for m in row.messages if m.role == "assistant")
    assert trained_text(renderer, renderer.render(row)[0]) == expected


ANY_ORDER = Renderer(byte_level(SHAPES["chatml"]))


def test_a_control_token_is_only_where_the_template_writes_it() -> None:
    renderer = ANY_ORDER
    ids = renderer.render(Row(SINGLE))[0].ids
    start, end = (renderer.tokenizer.control[n].id for n in ("<|im_start|>", "<|im_end|>"))
    assert [i for i in ids if i in (start, end)] == [start, end, start, end]
    assert all(a != b for a, b in pairwise(ids) if a in (start, end))


def test_the_plain_templates_mark_the_answer_for_other_tools(llama_dir: Path, tmp_path: Path) -> None:
    renderer = Renderer(Tokenizer.load(llama_dir), "plain")
    other = reloaded(renderer, tmp_path)
    found = other.apply_chat_template(
        [m.to_json() for m in SINGLE], return_dict=True, return_assistant_tokens_mask=True
    )
    (example,) = renderer.render(Row(SINGLE))
    assert [bool(m) for m in found["assistant_masks"]] == example.mask
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["pad_token"] == "</s>"


def test_the_overhead_of_an_answer_is_what_the_template_has_a_model_write_beside_it(
    renderers: dict[str, Renderer],
) -> None:
    assert renderers["qwen3"].answer_overhead > renderers["chatml"].answer_overhead == 1
    for renderer in renderers.values():
        row = pair("Why?", "Because it is so.")
        (example,) = renderer.render(row)
        assert sum(example.mask) == len(renderer.tokenizer.encode(row.answer, start=False)) + renderer.answer_overhead
