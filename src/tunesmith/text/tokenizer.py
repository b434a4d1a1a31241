"""A tokenizer that keeps text and control apart: what a user writes can never become a control token.

Built on the `tokenizers` library and the files of a Hugging Face model directory, without torch or transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers

from tunesmith.core.errors import ModelError

TEMPLATE_FILE = "chat_template.jinja"


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
        self.control = self._control_tokens()
        self._plain = self._plain_backend()
        # SentencePiece-like tokenizers put a space mark before the text's first word; a later piece must not get one.
        self._marks_start = "▁" in (backend.encode("a", add_special_tokens=False).tokens or [""])[0]

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read tokenizer.json, tokenizer_config.json and the chat template. Raises ModelError when one is unusable."""
        file = path / "tokenizer.json"
        if not file.is_file():
            raise ModelError(f"{path} has no tokenizer.json", expected="a model directory with its fast tokenizer")
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
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
        return bool(self.config.get("add_bos_token")) or self.backend.encode("a").ids[0] == self.bos_id

    def encode(self, text: str, *, start: bool = True) -> list[int]:
        """Ids of plain text: control-token strings in it stay text, and nothing is added.

        `start` is False for a piece that follows others, so that no start-of-text mark is put before it.
        """
        if self._marks_start and not start:
            encoding = self._plain.encode("\n" + text, add_special_tokens=False)
            ids = [i for i, (_, end) in zip(encoding.ids, encoding.offsets, strict=True) if end > 1]
        else:
            ids = self._plain.encode(text, add_special_tokens=False).ids
        if not self.control.keys().isdisjoint(text_controls := set(self._found(text))) and self._has_control(ids):
            return self._encode_cut(text, text_controls, start)
        return ids

    def encode_many(self, texts: list[str]) -> list[list[int]]:
        """Ids of many plain texts, in parallel; the fast path for raw text."""
        return [e.ids for e in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

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
        return plain

    def _found(self, text: str) -> list[str]:
        return self._pattern.findall(text) if self.control else []

    def _has_control(self, ids: list[int]) -> bool:
        return not {c.id for c in self.control.values()}.isdisjoint(ids)

    def _encode_cut(self, text: str, found: set[str], start: bool) -> list[int]:
        """For vocabularies that hold control strings as ordinary pieces: cut after each one's first character."""
        cut = re.compile("|".join(f"(?<={re.escape(t[0])})(?={re.escape(t[1:])})" for t in sorted(found)))
        pieces = [p for p in cut.split(text) if p]
        return [i for n, p in enumerate(pieces) for i in self.encode(p, start=start and n == 0)]


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
            config |= {k: v for k, v in json.loads((path / name).read_text("utf-8")).items() if v is not None}
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
