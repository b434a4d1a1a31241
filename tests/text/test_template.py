from pathlib import Path

import jinja2
import pytest

from tunesmith.core.errors import ModelError, UsageError
from tunesmith.core.records import Message
from tunesmith.text.render import Renderer
from tunesmith.text.template import Template, template_source
from tunesmith.text.tokenizer import Tokenizer, train_bpe

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Me."},
    {"role": "user", "content": "Why?"},
]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_bpe(["who and why"], 260)


def test_the_plain_template_is_written_as_the_course_writes_it(tokenizer: Tokenizer) -> None:
    template = Template(template_source("plain", tokenizer), tokenizer)
    expected = "Be brief.\n\n### Question:\nWho?\n\n### Answer:\nMe.<|endoftext|>\n### Question:\nWhy?\n\n### Answer:\n"
    assert template.render(MESSAGES, generate=True) == expected
    assert template.render(MESSAGES, generate=False) == expected.removesuffix("### Answer:\n")


def test_the_alpaca_template_has_its_preamble_once(tokenizer: Tokenizer) -> None:
    template = Template(template_source("alpaca", tokenizer), tokenizer)
    text = template.render(MESSAGES[1:2], generate=True)
    head = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    assert text == f"{head}\n\n### Instruction:\nWho?\n\n### Response:\n"
    assert template.render(MESSAGES, generate=True).count(head) == 1


def test_own_templates_start_with_bos_where_the_tokenizer_does(llama_dir: Path, gpt2_dir: Path) -> None:
    llama, gpt2 = Tokenizer.load(llama_dir), Tokenizer.load(gpt2_dir)
    prompts = {t: Renderer(t, "plain").prompt([Message("user", "Why?")]) for t in (llama, gpt2)}
    assert prompts[llama].count(llama.bos_id or 0) == 1
    assert prompts[llama][0] == llama.bos_id
    assert gpt2.bos_id not in prompts[gpt2]


def test_auto_takes_the_models_own_template_and_plain_where_there_is_none(qwen_dir: Path, gpt2_dir: Path) -> None:
    qwen, gpt2 = Tokenizer.load(qwen_dir), Tokenizer.load(gpt2_dir)
    assert template_source("auto", qwen) == qwen.chat_template
    assert template_source("auto", gpt2) == template_source("plain", gpt2)


def test_a_template_file_is_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}{{ eos_token }}")
    template = Template(template_source(str(tmp_path / "own.jinja"), tokenizer), tokenizer)
    assert template.render(MESSAGES, generate=False) == "Be brief.<|endoftext|>"


def test_a_template_that_is_not_there_is_a_usage_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        template_source(str(tmp_path / "none.jinja"), tokenizer)
    with pytest.raises(UsageError, match="did you mean 'alpaca'"):
        template_source("alpacca", tokenizer)


def test_a_template_that_is_no_jinja_is_a_model_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelError, match="not valid Jinja"):
        Template("{% for %}", tokenizer)


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no') }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[9].content }}",
        "{{ missing.name }}",
        "{{ 1 // 0 }}",
        "{{ range(10**9) | list }}",
        "{{ messages.append(1) }}",
    ],
)
def test_whatever_a_template_does_wrong_is_one_kind_of_error(tokenizer: Tokenizer, source: str) -> None:
    with pytest.raises(jinja2.TemplateError):
        Template(source, tokenizer).render(MESSAGES, generate=False)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__['os'] }}",
    ],
)
def test_a_template_runs_in_a_sandbox(tokenizer: Tokenizer, source: str) -> None:
    with pytest.raises(jinja2.exceptions.SecurityError):
        Template(source, tokenizer).render(MESSAGES, generate=False)


def test_a_template_has_the_switches_that_transformers_gives_it(tokenizer: Tokenizer) -> None:
    source = (
        "{% for m in messages %}\n  {% if m.role == 'system' %}{% continue %}{% endif %}\n"
        "{% generation %}{{ m.content }}{% endgeneration %}\n{% if m.role == 'assistant' %}{% break %}{% endif %}\n"
        "{% endfor %}\n{{ {'ü': [1]} | tojson(indent=1) }}{{ tools is none }}{{ strftime_now('%Y') }}"
    )
    assert Template(source, tokenizer).render(MESSAGES, generate=False) == 'Who?Me.{\n "ü": [\n  1\n ]\n}True2024'
