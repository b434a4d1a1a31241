"""A tokenizer that keeps text and control apart: what a user writes can never become a control token.

Built on the `tokenizers` library and the files of a Hugging Face model directory, without torch or transformers.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers

from tunesmith.core.errors import DataError, ModelError

TEMPLATE_FILE = "chat_template.jinja"
_ANCHORS = ("\n", ")", "0")  # what a text is put behind, so that it does not start; one that it does not melt into


class Tokenizer:
    """One model's tokenizer: `backend` parses control tokens, `_plain` reads the same strings as text."""

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any], chat_template: str | None = None) -> None:
        self.backend, self.config, self.chat_template = backend, config, chat_template
        self.backend.no_truncation()
        self.backend.no_padding()
        self.bos_token = _token(config, "bos_token")
        self.eos_token = _token(config, "eos_token")
        eos_id = backend.token_to_id(self.eos_token) if self.eos_token else None
        if eos_id is None:
            fix = "name one of its tokens as eos_token in tokenizer_config.json"
            raise ModelError("the tokenizer has no end-of-sequence token, so an answer could not end", fix=fix)
        self.eos_id: int = eos_id
        self.bos_id: int | None = backend.token_to_id(self.bos_token) if self.bos_token else None
        pad = _token(config, "pad_token")
        pad_id = backend.token_to_id(pad) if pad else None
        self.pad_id: int = self.eos_id if pad_id is None else pad_id  # harmless: masks are made by length, never by id
        self.use_template(chat_template)
        # SentencePiece-like tokenizers put a space mark before the text's first word; a later piece must not get one,
        # unless the tokenizer starts anew after each control token.
        self._marks_start = "▁" in (backend.encode("a", add_special_tokens=False).tokens or [""])[0]
        after = backend.encode(f"{self.eos_token}a", add_special_tokens=False).tokens[1:]
        self.restarts = "▁" in (after or [""])[0]

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read tokenizer.json, tokenizer_config.json and the chat template. Raises ModelError when one is unusable."""
        file = path / "tokenizer.json"
        if not file.is_file():
            raise ModelError(f"{path} has no tokenizer.json", expected="a model directory with its fast tokenizer")
        try:
            backend = tokenizers.Tokenizer.from_buffer(file.read_bytes())
        except ValueError as error:
            raise ModelError(f"{file} is not a tokenizer: {error}") from error
        config = _read_config(path)
        template = path / TEMPLATE_FILE
        return cls(backend, config, template.read_text("utf-8") if template.is_file() else _named_template(config))

    @property
    def vocab_size(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def adds_bos(self) -> bool:
        """Whether this tokenizer starts every text with its BOS token."""
        if self.bos_id is None:
            return False
        return bool(self.config.get("add_bos_token")) or self.backend.encode("a").ids[:1] == [self.bos_id]

    def use_template(self, source: str | None) -> None:
        """Take a chat template, which is saved with the tokenizer: the added tokens that it writes become control."""
        self.chat_template = source
        self.control = self._control_tokens()
        self._control_ids = frozenset(c.id for c in self.control.values())
        self._plain = self._plain_backend()

    def encode(self, text: str, *, start: bool = True) -> list[int]:
        """Ids of plain text: control-token strings in it stay text, and nothing is added.

        `start` is False for a piece that follows others, so that no start-of-text mark is put before it.
        Raises DataError on a character that this tokenizer can only write as a control token.
        """
        ids, spans = self._encode(text, start)
        cuts = {0, len(text)}
        if not self._control_ids.isdisjoint(ids):  # a vocabulary with control strings as ordinary pieces
            cuts |= {a + 1 for i, (a, b) in zip(ids, spans, strict=True) if self._is_control(i, text[a:b])}
        if len(cuts) == 2:
            return ids
        places = itertools.pairwise(sorted(cuts))
        return [i for a, b in places for i in self.encode(text[a:b], start=start and a == 0)]

    def _encode(self, text: str, start: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and the characters that each stands for."""
        if start or not self._marks_start:
            encoding = self._plain.encode(text, add_special_tokens=False)
            return encoding.ids, encoding.offsets
        for anchor in _ANCHORS:
            encoding = self._plain.encode(anchor + text, add_special_tokens=False)
            if all(a >= 1 or b <= 1 for a, b in encoding.offsets):
                break
        both = zip(encoding.ids, encoding.offsets, strict=True)
        found = [(i, (max(0, a - 1), b - 1)) for i, (a, b) in both if b > 1]
        return [i for i, _ in found], [span for _, span in found]

    def _is_control(self, token: int, text: str) -> bool:
        """Whether this piece of content became a control token, and not only the mark of an unknown character."""
        name = str(self._plain.id_to_token(token))
        if token not in self._control_ids or (token == self._unknown and name not in text):
            return False
        if len(text) < 2:
            what = f"{text!r} can only be written as the control token {name!r}"
            raise DataError(what, fix="take the character out of the row")
        return True

    def encode_many(self, texts: list[str]) -> list[list[int]]:
        """Ids of many plain texts, in parallel; the fast path for raw text."""
        found = [e.ids for e in self._plain.encode_batch_fast(texts, add_special_tokens=False)]
        safe = (self._control_ids.isdisjoint(ids) for ids in found)
        return [ids if fine else self.encode(text) for ids, text, fine in zip(found, texts, safe, strict=True)]

    def decode(self, ids: Iterable[int], keep_special: bool = False) -> str:
        return str(self.backend.decode(list(ids), skip_special_tokens=not keep_special))

    def split_control(self, literal: str) -> Iterator[tuple[str, int | None]]:
        """Cut a template's literal into (text, None) and (control token, id) parts."""
        at = 0
        for match in self._pattern.finditer(literal) if self.control else ():
            if match.start() > at:
                yield literal[at : match.start()], None
            yield match[0], self.control[match[0]].id
            at = match.end()
        if at < len(literal):
            yield literal[at:], None

    def save(self, path: Path) -> None:
        """Write the files that transformers reads, chat template included; a missing pad token becomes EOS."""
        self.backend.save(str(path / "tokenizer.json"))
        config = {k: v for k, v in self.config.items() if k != "chat_template"}
        config["eos_token"] = self.eos_token
        config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        if not _token(config, "pad_token"):
            config["pad_token"] = self.eos_token
        (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if self.chat_template is not None:
            (path / TEMPLATE_FILE).write_text(self.chat_template, "utf-8")

    def _control_tokens(self) -> dict[str, _Control]:
        """Special tokens, and added tokens that the chat template writes (such as <think>); spaces are neither."""
        spec = json.loads(self.backend.to_str())["added_tokens"]
        template = self.chat_template or ""
        chosen = [t for t in spec if t["content"].strip() and (t["special"] or t["content"] in template)]
        table = {t["content"]: _Control(t["id"], t["lstrip"], t["rstrip"]) for t in chosen}
        longest_first = sorted(table, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        return table

    def _plain_backend(self) -> tokenizers.Tokenizer:
        spec = json.loads(self.backend.to_str())
        for token in spec["added_tokens"]:  # ids must not move, so the tokens stay and are read as text instead
            token["special"] = token["special"] or token["content"] in self.control
        plain = tokenizers.Tokenizer.from_str(json.dumps(spec))
        plain.encode_special_tokens = True
        model = spec["model"]
        self._unknown = model.get("unk_id", plain.token_to_id(model.get("unk_token") or ""))
        return plain


class _Control:
    """A control token: its id, and whether it swallows the white space on either side of it."""

    def __init__(self, id: int, lstrip: bool, rstrip: bool) -> None:
        self.id, self.lstrip, self.rstrip = id, lstrip, rstrip


def _token(config: dict[str, Any], name: str) -> str | None:
    value = config.get(name)
    return value.get("content") if isinstance(value, dict) else value


def _read_config(path: Path) -> dict[str, Any]:
    """tokenizer_config.json, filled up from special_tokens_map.json, which older directories use."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path / name).is_file():
            try:
                found = json.loads((path / name).read_text("utf-8"))
            except ValueError as error:
                raise ModelError(f"{path / name} cannot be read: {error}", fix="download the model again") from error
            if not isinstance(found, dict):
                raise ModelError(f"{path / name} holds a {type(found).__name__}", expected="a JSON object")
            config |= {k: v for k, v in found.items() if v is not None}
    return config


def _named_template(config: dict[str, Any]) -> str | None:
    """The template in the config: a string, or the one named default in a list."""
    found = config.get("chat_template")
    if isinstance(found, list):
        return next((t["template"] for t in found if t["name"] == "default"), None)
    return found


def train_bpe(texts: Iterable[str], vocab_size: int, eos_token: str = "<|endoftext|>") -> Tokenizer:
    """Train a byte-level BPE from zero: every string can be written with it, nothing is unknown."""
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[eos_token], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, {"eos_token": eos_token, "clean_up_tokenization_spaces": False})
