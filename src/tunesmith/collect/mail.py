"""A mailbox (mbox) to questions and answers: who wrote first, and what another person answered last."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message as Mail
from email.utils import parseaddr, parsedate_to_datetime

from tunesmith.collect.page import plain
from tunesmith.collect.record import Record, shown
from tunesmith.collect.unpack import Blob
from tunesmith.core.records import Reject

ANSWERS = re.compile(r"\s*(\[[^\]]*\]\s*)*(re|aw|sv|antw)(\[\d+\])?:", re.I)  # the subject of an answer
MARKS = re.compile(r"^\s*((re|aw|sv|antw|fwd?|wg|tr)(\[\d+\])?:\s*|\[[^\]]*\]\s*)+", re.I)
CUTS = (  # from such a line on, a message holds what others wrote, or a signature
    re.compile(r"-- ?$"),
    re.compile(r"_{10,}\s*$"),
    re.compile(r"-{2,}\s*(original message|forwarded message|ursprüngliche nachricht)", re.I),
    re.compile(r"(from|von|de): .*@", re.I),
    re.compile(r"(sent|get outlook|gesendet|envoyé) (from|for|von|depuis) ", re.I),
)
WROTE = re.compile(r"(on|am|le)\b.*(wrote|schrieb|a écrit)\b.*:\s*$", re.I | re.S)
ID = re.compile(r"<[^<>\s]+>")
AUTOMATIC = {"bulk", "auto_reply", "junk", "list-auto"}


@dataclass(frozen=True)
class Letter:
    """One message without its quotes. `at`: seconds since 1970, or None where the date cannot be read. `own`: its id;
    `names`: the ids of messages that it answers."""

    line: int
    sender: str
    subject: str
    at: float | None
    own: str
    names: tuple[str, ...]
    body: str
    automatic: bool
    raw: str


def read(blob: Blob, name: str) -> Iterator[Record | Reject]:
    """A record for each thread that was answered; a reject for every other thread, and for each automatic message."""
    letters: list[Letter] = []
    for line, data in _messages(blob):
        letter = _letter(line, data)
        if letter.automatic or not letter.body:
            reason, what = ("automatic", "by a program") if letter.automatic else ("empty", "no text of its own")
            yield Reject(name, line, reason, f"{name}:{line}: {what}", letter.raw)
        else:
            letters.append(letter)
    for thread in _threads(letters):
        yield from _exchange(thread, name)


def _messages(blob: Blob) -> Iterator[tuple[int, bytes]]:
    """Each message with the line that it starts on: a line "From ..." after a blank one parts them."""
    held: list[bytes] = []
    start, blank = 1, True
    with blob.open() as stream:
        for number, line in enumerate(stream, 1):
            if blank and line.startswith(b"From "):
                if held:
                    yield start, b"".join(held)
                held, start = [], number
            else:
                held.append(line)
            blank = not line.strip()
    if held:
        yield start, b"".join(held)


def _letter(line: int, data: bytes) -> Letter:
    mail = message_from_bytes(data)
    name, address = parseaddr(_header(mail, "From"))
    own = " ".join(ID.findall(_header(mail, "Message-ID"))[:1])
    names = ID.findall(_header(mail, "In-Reply-To") + _header(mail, "References"))
    precedence = _header(mail, "Precedence").strip().casefold()
    automatic = precedence in AUTOMATIC or _header(mail, "Auto-Submitted").casefold().startswith("auto")
    subject = " ".join(_header(mail, "Subject").split())
    body = _own_words(_body(mail))
    sender = (address or name).casefold()
    raw = shown(data.decode(errors="replace"))
    return Letter(line, sender, subject, _date(mail), own, tuple(names), body, automatic, raw)


def _header(mail: Mail, key: str) -> str:
    value = mail.get(key)
    try:
        return str(make_header(decode_header(value))) if value is not None else ""
    except (HeaderParseError, LookupError, ValueError):
        return str(value).encode(errors="replace").decode()


def _date(mail: Mail) -> float | None:
    try:
        when = parsedate_to_datetime(_header(mail, "Date"))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _body(mail: Mail) -> str:
    """The text of a message: its first plain part, else its first HTML one; attachments are none."""
    parts = [part for part in mail.walk() if not part.is_multipart() and part.get_content_disposition() != "attachment"]
    for kind in ("text/plain", "text/html"):
        for part in parts:
            if part.get_content_type() == kind:
                text = _decoded(part)
                return plain(text) if kind == "text/html" else text
    return ""


def _decoded(part: Mail) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    try:
        return data.decode(part.get_content_charset() or "utf-8", "surrogateescape")
    except (LookupError, ValueError):
        return data.decode("utf-8", "surrogateescape")


def _own_words(text: str) -> str:
    """What the sender wrote: without quoted lines, the line that announces them, and the signature."""
    lines = text.replace("\r\n", "\n").split("\n")
    end = next((at for at, line in enumerate(lines) if any(cut.match(line.strip()) for cut in CUTS)), len(lines))
    kept: list[str] = []
    for line in lines[:end]:
        if not line.lstrip().startswith(">"):
            kept.append(line[1:] if line.startswith(">From ") else line)
            continue
        while kept and not kept[-1].strip():
            kept.pop()
        for count in (1, 2):  # the announcement may be wrapped
            if WROTE.match("\n".join(kept[-count:]).strip()):
                del kept[-count:]
                break
    while kept and not kept[-1].strip():
        kept.pop()
    if kept and WROTE.match(kept[-1].strip()):
        kept.pop()
    return "\n".join(kept).strip()


def _threads(letters: list[Letter]) -> list[list[Letter]]:
    """Messages that name one another, each thread by date. An answer that names none that is here goes with the only
    message of its subject that is no answer."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    here = {letter.own for letter in letters if letter.own}
    first = Counter(_bare(letter.subject) for letter in letters if not ANSWERS.match(letter.subject))
    grouped: dict[str, list[Letter]] = defaultdict(list)
    for letter in letters:
        keys = [f"line {letter.line}", *({letter.own} - {""}), *letter.names]
        subject = _bare(letter.subject)
        stray = ANSWERS.match(letter.subject) and not here & set(letter.names)
        if subject and (stray or (first[subject] == 1 and not ANSWERS.match(letter.subject))):
            keys.append(f"subject {subject}")
        for key in keys[1:]:
            parent[root(key)] = root(keys[0])
    for letter in letters:
        grouped[root(f"line {letter.line}")].append(letter)
    return [_by_date(thread) for thread in grouped.values()]


def _by_date(thread: list[Letter]) -> list[Letter]:
    """As the file has them where not every date can be read."""
    dated = all(letter.at is not None for letter in thread)
    return sorted(thread, key=lambda letter: (letter.at or 0.0 if dated else 0.0, letter.line))


def _bare(subject: str) -> str:
    return MARKS.sub("", subject).casefold()


def _exchange(thread: list[Letter], name: str) -> Iterator[Record | Reject]:
    """The first message of a thread and the last one by another person; each of the others as a reject."""
    asked = thread[0]
    answer = next((letter for letter in reversed(thread) if letter.sender != asked.sender), None)
    if answer is not None:
        question = asked.body if asked.subject in asked.body else f"{asked.subject}\n\n{asked.body}"
        group = asked.own or f"{name}:{asked.line}"
        value = {"question": question, "answer": answer.body, "meta": {"group": group}}
        yield Record(asked.line, value, asked.raw)
    reason, what = ("no_reply", "no one else wrote") if answer is None else ("not_needed", "not question nor answer")
    for letter in thread:
        if answer is None or letter not in (asked, answer):
            yield Reject(name, letter.line, reason, f"{name}:{letter.line}: {what}", letter.raw)
