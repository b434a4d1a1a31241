"""What can be wrong with one row, looked at on its own: a row of CHECKS each. Nothing is deleted for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

from tunesmith.core.records import Row
from tunesmith.prepare.corpus import Corpus, answers, asks, turns
from tunesmith.prepare.finding import Check, Hit
from tunesmith.prepare.pii import personal, secrets
from tunesmith.text.refusals import REFUSALS
from tunesmith.text.residue import control_tokens, has_residue
from tunesmith.text.similar import normalise

NULLS = ("null", "nan", "none", "undefined", "n/a")  # what a program writes where it had nothing
ECHO = 40  # characters of a question from which its return in the answer counts
BOILERPLATE_START = ("certainly ", "sure heres", "sure here ", "of course here", "absolutely here", "great question")
BOILERPLATE = (
    "i hope this helps",
    "hope that helps",
    "let me know if you have any",
    "feel free to ask",
    "please let me know if",
    "if you have any other questions",
    "if you have any further questions",
)
DANGLING = "the a an and or but of to with for from by as at that which because is are was were if than its their"
_SENTENCE = re.compile(r"[.!?…][\"'”’)]* +[\"'“‘(]?[A-Z]")
_WORDLESS = re.compile(r"[\W_]*")
_URL = re.compile(r"\s*<?(?:https?://|www\.)\S+\s*")
_TAG = re.compile(
    r"</?(?:p|div|span|br|b|i|strong|em|ul|ol|li|td|tr|table|h[1-6]|img|font|script|style)\b[^<>]{0,200}>"
)
_ENTITY = re.compile(r"&(?:amp|nbsp|lt|gt|quot|apos|hellip|mdash|ndash|rsquo|ldquo|#\d{2,5}|#x[0-9a-fA-F]{2,4});")
_ABOUT_MARKUP = re.compile(r"html|xml|css|web|page|tag|markup|entit|javascript|<", re.IGNORECASE)
_MIXED = re.compile("[ÂÃÐÑâðïàä][\x80-\xbfŒœŠšŸŽžƒˆ˜–—‘-„†-•…‰‹›€™]{1,3}")  # UTF-8 read as Windows-1252


def empty(row: Row) -> str:
    """No letter and no digit. (What has no character at all was rejected before.)"""
    parts = [part for part in (asks(row), *answers(row)) if _WORDLESS.fullmatch(part)]
    return f"nothing but '{parts[0].strip()}'" if parts else ""


def null(row: Row) -> str:
    """The whole question or answer is what a program writes where it had no value."""
    parts = [part.strip() for part in (asks(row), *answers(row)) if len(part) < 20]
    return next((f"'{part}'" for part in parts if part.casefold() in NULLS), "")


def role_order(row: Row) -> str:
    """system first if at all, then user and assistant in turn, and an answer last."""
    roles = [m.role for m in row.messages]
    if "system" in roles[1:]:
        return "a system message after the first message"
    spoken = [role for role in roles if role not in ("system", "tool")]
    if spoken[:1] == ["assistant"]:
        return "begins with an answer"
    if twice := next((a for a, b in pairwise(roles) if a == b != "tool"), ""):
        return f"two {twice} messages in a row"
    return "ends without an answer" if roles and row.chosen is None and roles[-1] != "assistant" else ""


def cut_off(row: Row) -> str:
    """An answer that stops inside a sentence."""
    for answer in answers(row):
        last = answer.rstrip()[-400:].split("\n")[-1].strip()
        words = last.split()
        if not words or "```" in answer or "/" in words[-1]:
            continue
        if last[-1] in ",:;([{" and len(words) >= 3:
            return f"ends with '{' '.join(words[-3:])}'"
        if len(words) >= 4 and words[-1] in DANGLING.split():
            return f"ends with '{' '.join(words[-3:])}'"
        if len(words) >= 12 and last[-1].isalpha() and words[-1].islower() and _SENTENCE.search(last):
            return f"its last sentence has no end: '{' '.join(words[-4:])}'"
    return ""


def mojibake(row: Row) -> str:
    """Text that was read in the wrong encoding: it reads as UTF-8 once it is put back."""
    for part in (asks(row), *answers(row)):
        if part.isascii():
            continue
        if "\ufffd" in part:
            return "holds the replacement character �"
        for match in _MIXED.finditer(part):
            if mended := _undone(match[0]):
                return f"'{match[0]}' for '{mended}'"
    return ""


def _undone(text: str) -> str:
    """What the bytes of a wrongly read run say in UTF-8, or ''. A real run of accents says nothing in it."""
    for end in range(len(text), 1, -1):
        for encoding in ("cp1252", "latin-1"):
            try:
                return text[:end].encode(encoding).decode()
            except UnicodeError:
                continue
    return ""


def fences(row: Row) -> str:
    """An odd number of code fences: one was opened and never closed."""
    return "```" if any(answer.count("```") % 2 for answer in answers(row)) else ""


def url_only(row: Row) -> str:
    return next((a.strip() for a in (asks(row), *answers(row)) if ":/" in a[:9] and _URL.fullmatch(a)), "")


def markup(row: Row) -> str:
    """Tags and entities where nobody spoke of markup: what a page left behind."""
    for part in (asks(row), *answers(row)):
        if ("<" in part or "&" in part) and "```" not in part:
            found = _TAG.search(part) or _ENTITY.search(part)
            if found and not any(_ABOUT_MARKUP.search(m.content) for m in row.messages if m.content != part):
                return found[0]
    return ""


def revealed(find: Callable[[str], Iterator[tuple[str, str]]], row: Row) -> str:
    """What `find` finds in any message that is trained on or shown."""
    texts = [row.text, *[m.content for m in row.messages], row.chosen or ""]
    return ", ".join(sorted({f"{kind} {start}" for text in texts if text for kind, start in find(text)}))


def residue(row: Row) -> str:
    return "a template's mark" if has_residue(row) else ""


def controls(row: Row) -> str:
    return " ".join(control_tokens(row))


def echo(corpus: Corpus) -> Iterator[Hit]:
    """The answer is the question, or holds all of a long one."""
    for i, row in enumerate(corpus.rows):
        if len(row.messages) <= 3 and row.chosen is None:
            pairs = [(corpus.asked.plain[i], corpus.answered.plain[i])]
        else:
            pairs = [(normalise(asked), normalise(said)) for asked, said in turns(row)]
        for asked, said in pairs:
            if asked and asked == said:
                yield i, "the answer is the question"
                break
            if len(asked) >= ECHO and asked in said:
                yield i, "the answer holds the whole question"
                break


def phrases(listed: tuple[str, ...], starts: tuple[str, ...], corpus: Corpus) -> Iterator[Hit]:
    """Answers that hold one of the phrases, or begin with one of the starts."""
    for i, text in enumerate(corpus.answered.plain):
        if text.startswith(starts) or any(map(text.__contains__, listed)):
            found = next((start for start in starts if text.startswith(start)), "")
            found = found or next(phrase for phrase in listed if phrase in text)
            yield i, f"'{found.strip()}'"


def each(function: Callable[[Row], str], corpus: Corpus) -> Iterator[Hit]:
    """A check of single rows as a check of all."""
    for i, row in enumerate(corpus.rows):
        if detail := function(row):
            yield i, detail


CHECKS = (
    Check("empty", "error", partial(each, empty), "a question or an answer without a letter or a digit"),
    Check("null", "error", partial(each, null), "a missing value written out: null, NaN, None, undefined, N/A"),
    Check("role_order", "error", partial(each, role_order), "messages that do not go user, assistant, user, assistant"),
    Check(
        "mojibake",
        "error",
        partial(each, mojibake),
        "text read in the wrong encoding",
        "set `encoding` under [collect] in tunesmith.toml, or mend these lines, then `tunesmith collect FILE`",
    ),
    Check(
        "residue",
        "error",
        partial(each, residue),
        "a prompt template is still inside the row, and will be put on a second time",
    ),
    Check(
        "control_tokens",
        "warning",
        partial(each, controls),
        "strings that tokenizers take for control tokens; Tunesmith's renderer keeps them plain text, others may not",
    ),
    Check("secret", "error", partial(each, partial(revealed, secrets)), "keys and tokens: a model can repeat them"),
    Check(
        "pii", "warning", partial(each, partial(revealed, personal)), "e-mail, phone, card, IBAN or public IP address"
    ),
    Check("echo", "error", echo, "the answer is the question, or repeats all of it"),
    Check("refusal", "warning", partial(phrases, REFUSALS, ()), "an assistant's refusal or talk about itself"),
    Check("boilerplate", "note", partial(phrases, BOILERPLATE, BOILERPLATE_START), "an assistant's set phrases"),
    Check("cut_off", "warning", partial(each, cut_off), "an answer that stops inside a sentence: the model learns to"),
    Check("fences", "warning", partial(each, fences), "a code fence that is opened and never closed"),
    Check("url_only", "warning", partial(each, url_only), "nothing but a link"),
    Check("markup", "note", partial(each, markup), "HTML tags or entities that a page left behind"),
)
