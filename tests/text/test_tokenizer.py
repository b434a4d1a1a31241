import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from tunesmith.core.errors import DataError, ModelError
from tunesmith.text.tokenizer import Tokenizer, train_bpe

SPECIAL = ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "</s>", "<s>", "<unk>"]
TEXT = st.lists(
    st.one_of(st.text(st.characters(exclude_categories=("Cs",)), max_size=10), st.sampled_from(SPECIAL)), max_size=6
).map("".join)


@given(text=TEXT)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_with_control_strings_comes_back_and_holds_no_control_id(any_model_dir: Path, text: str) -> None:
    tokenizer = Tokenizer.load(any_model_dir)
    ids = tokenizer.encode(text)
    assert not {c.id for c in tokenizer.control.values()} & set(ids)
    assert tokenizer.decode(ids) == tokenizer.decode(ids, keep_special=True) == text
    assert tokenizer.encode_many([text, "a"]) == [ids, tokenizer.encode("a")]


def test_text_without_control_strings_has_the_ids_that_transformers_gives(any_model_dir: Path) -> None:
    from transformers import AutoTokenizer

    text = "The quick  brown fox,\n\njumps över 3 dogs. 日本"
    other = AutoTokenizer.from_pretrained(any_model_dir)
    assert Tokenizer.load(any_model_dir).encode(text) == other(text, add_special_tokens=False)["input_ids"]


def test_the_special_ids_are_those_of_the_config(any_model_dir: Path) -> None:
    from transformers import AutoTokenizer

    ours, theirs = Tokenizer.load(any_model_dir), AutoTokenizer.from_pretrained(any_model_dir)
    assert (ours.eos_id, ours.bos_id) == (theirs.eos_token_id, theirs.bos_token_id)
    assert ours.pad_id == (theirs.eos_token_id if theirs.pad_token_id is None else theirs.pad_token_id)
    assert ours.vocab_size == len(theirs)
    assert ours.adds_bos == (theirs("a")["input_ids"][0] == theirs.bos_token_id)


def test_a_saved_tokenizer_reads_back_as_the_same_one(any_model_dir: Path, tmp_path: Path) -> None:
    first = Tokenizer.load(any_model_dir)
    first.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.backend.to_str() == first.backend.to_str()
    assert (again.eos_id, again.bos_id, again.pad_id) == (first.eos_id, first.bos_id, first.pad_id)
    assert (again.chat_template, again.adds_bos) == (first.chat_template, first.adds_bos)
    assert again.control.keys() == first.control.keys()


def test_special_tokens_are_left_out_of_decoded_text_unless_asked_for(qwen_dir: Path) -> None:
    tokenizer = Tokenizer.load(qwen_dir)
    ids = [*tokenizer.encode("Yes."), tokenizer.eos_id]
    assert tokenizer.decode(ids) == "Yes."
    assert tokenizer.decode(ids, keep_special=True) == "Yes.<|im_end|>"


def test_a_template_is_cut_at_its_control_tokens_longest_first(qwen_dir: Path) -> None:
    tokenizer = Tokenizer.load(qwen_dir)
    start = tokenizer.control["<|im_start|>"].id
    parts = list(tokenizer.split_control("a<|im_start|>user<|im_end|>"))
    assert parts == [("a", None), ("<|im_start|>", start), ("user", None), ("<|im_end|>", tokenizer.eos_id)]
    assert list(tokenizer.split_control("")) == []
    nested = Tokenizer(special(train_bpe(["abc"], 257).backend, "<a>", "<a><b>"), {"eos_token": "<a>"})
    assert [t for t, _ in nested.split_control("<a><b><a>")] == ["<a><b>", "<a>"]


def special(backend: tokenizers.Tokenizer, *names: str) -> tokenizers.Tokenizer:
    backend.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    return backend


def test_an_added_token_is_control_only_where_the_template_writes_it() -> None:
    backend = train_bpe(["think about it"], 300).backend
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    tokenizer = Tokenizer(backend, {"eos_token": "<|endoftext|>"})
    think = backend.token_to_id("<think>")
    assert tokenizer.encode("<think>") == [think]
    tokenizer.use_template("{{ '<think>' }}")
    assert think not in tokenizer.encode("a <think> b")
    assert tokenizer.decode(tokenizer.encode("a <think> b")) == "a <think> b"


def unigram(*pieces: str, normalizer: Any = None) -> Tokenizer:
    """A Unigram tokenizer that would rather take its control strings whole than letter by letter."""
    names = ["<unk>", "<s>", "</s>"]
    vocab = [(n, 0.0) for n in names] + [(p, -1.0) for p in dict.fromkeys(["▁", *"</s>abk", *pieces])]
    backend = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    if normalizer:
        backend.normalizer = normalizer
    return Tokenizer(special(backend, *names), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


def test_a_vocabulary_that_holds_control_strings_as_pieces_writes_them_letter_by_letter() -> None:
    tokenizer = unigram()
    names = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode("a</s>b <s></s>")]
    assert names == ["▁", "a", "<", "/", "s", ">", "b", "▁", "<", "s", ">", "<", "/", "s", ">"]
    assert tokenizer.encode_many(["a</s>b"]) == [tokenizer.encode("a</s>b")]


def test_a_control_string_that_only_normalisation_makes_is_text_too() -> None:
    tokenizer = unigram(normalizer=normalizers.NFKC())
    names = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode("＜/s＞")]
    assert names == ["▁", "<", "/", "s", ">"]


def test_an_unknown_character_is_unknown_and_the_string_unk_is_text() -> None:
    tokenizer = unigram("u", "n")
    unknown = tokenizer.backend.token_to_id("<unk>")
    assert tokenizer.encode("a☃b").count(unknown) == 1
    assert unknown not in tokenizer.encode("<unk>")


def test_a_character_that_is_a_control_token_is_refused_and_never_written() -> None:
    vocab = [("<unk>", 0.0), ("§", -1.0), ("a", -1.0)]
    backend = special(tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0)), "§")
    tokenizer = Tokenizer(backend, {"eos_token": "§"})
    with pytest.raises(DataError, match="'§' can only be written as the control token"):
        tokenizer.encode("a§a")


def test_only_the_start_of_a_text_gets_a_space_mark() -> None:
    tokenizer = unigram("▁a", "\n")
    name = tokenizer.backend.id_to_token
    assert [name(i) for i in tokenizer.encode("ab")] == ["▁a", "b"]
    assert [name(i) for i in tokenizer.encode("ab", start=False)] == ["a", "b"]
    assert [name(i) for i in tokenizer.encode(" ab", start=False)] == ["▁a", "b"]
    assert tokenizer.encode("", start=False) == []


def test_a_later_piece_does_not_melt_into_what_it_is_put_behind() -> None:
    tokenizer = unigram("\n", "\n\n", "\na")
    name = tokenizer.backend.id_to_token
    assert [name(i) for i in tokenizer.encode("\na", start=False)] == ["\na"]
    assert [name(i) for i in tokenizer.encode("a", start=False)] == ["a"]


def changed(source: Path, folder: Path, name: str, text: str) -> Path:
    shutil.copytree(source, folder)
    (folder / name).write_text(text)
    return folder


def test_a_directory_without_a_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{bad", '{"version": "1.0"}', "[]"])
def test_a_damaged_tokenizer_is_a_model_error(gpt2_dir: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match="is not a tokenizer"):
        Tokenizer.load(changed(gpt2_dir, tmp_path / "x", "tokenizer.json", text))


@pytest.mark.parametrize(("text", "message"), [("{bad", "cannot be read"), ("[]", "holds a list")])
def test_a_damaged_tokenizer_config_is_a_model_error(gpt2_dir: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Tokenizer.load(changed(gpt2_dir, tmp_path / "x", "tokenizer_config.json", text))


@pytest.mark.parametrize("config", [{}, {"eos_token": None}, {"eos_token": "<no such token>"}])
def test_a_tokenizer_without_an_end_is_a_model_error(gpt2_dir: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        Tokenizer.load(changed(gpt2_dir, tmp_path / "x", "tokenizer_config.json", json.dumps(config)))


def test_the_template_comes_from_its_file_then_from_the_config(gpt2_dir: Path, tmp_path: Path) -> None:
    named = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    for place, (value, expected) in enumerate([("c", "c"), (named, "d"), (named[:1], None)]):
        config = {"eos_token": {"content": "<|endoftext|>"}, "chat_template": value}
        folder = changed(gpt2_dir, tmp_path / str(place), "tokenizer_config.json", json.dumps(config))
        assert Tokenizer.load(folder).chat_template == expected
        (folder / "chat_template.jinja").write_text("f")
        assert Tokenizer.load(folder).chat_template == "f"


def test_older_directories_name_their_tokens_in_special_tokens_map(gpt2_dir: Path, tmp_path: Path) -> None:
    folder = changed(gpt2_dir, tmp_path / "x", "special_tokens_map.json", '{"eos_token": {"content": "<|endoftext|>"}}')
    (folder / "tokenizer_config.json").write_text('{"eos_token": null}')
    assert Tokenizer.load(folder).eos_token == "<|endoftext|>"


@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_a_trained_byte_level_bpe_writes_every_string(text: str) -> None:
    assert TRAINED.decode(TRAINED.encode(text)) == text
    assert TRAINED.eos_id not in TRAINED.encode(text + "<|endoftext|>")


TRAINED = train_bpe(["the cat and the dog and the <|endoftext|> and the cat"] * 3, 270)


def test_training_a_bpe_is_deterministic_and_keeps_to_its_size() -> None:
    again = train_bpe(["the cat and the dog and the <|endoftext|> and the cat"] * 3, 270)
    assert again.backend.to_str() == TRAINED.backend.to_str()
    assert TRAINED.vocab_size == 270
    assert [TRAINED.backend.id_to_token(i) for i in TRAINED.encode(" the")] == ["Ġthe"]
    assert (TRAINED.eos_id, TRAINED.pad_id, TRAINED.bos_id) == (0, 0, None)
