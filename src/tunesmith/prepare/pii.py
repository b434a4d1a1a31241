"""Personal data and secrets in a text, each kind confirmed by more than its look: a checksum, a parse, a known prefix.

Names, addresses and dates of birth have no checksum and are not found: this is no proof that there are none.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

SHOWN = 4  # characters of a find that a report may repeat
DOCUMENTATION = ("example.com", "example.org", "example.net", ".example", ".test", ".invalid")  # RFC 2606


class Kind(NamedTuple):
    """`hints`: one of them must be in the text before the pattern is tried; without any it is tried on numbers only."""

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    valid: Callable[[str], bool]


def personal(text: str) -> Iterator[tuple[str, str]]:
    """(kind, the first characters of it) of every e-mail address, phone, card and IBAN number, and IP address."""
    yield from _hinted(text, PERSONAL)
    for span in _NUMERIC.finditer(text):
        near = text[max(0, span.start() - BEFORE) : span.end() + BEFORE]
        for kind in NUMBERS:
            if match := next((m for m in kind.pattern.finditer(near) if kind.valid(m[0])), None):
                yield kind.name, f"{match[0][:SHOWN]}..."
                break  # a card number is no phone number as well


def secrets(text: str) -> Iterator[tuple[str, str]]:
    """(secret, the first characters of it) of every key and token with a known prefix."""
    yield from _hinted(text, SECRETS)


def _hinted(text: str, kinds: Sequence[Kind]) -> Iterator[tuple[str, str]]:
    for kind in kinds:
        if any(map(text.__contains__, kind.hints)):
            for match in kind.pattern.finditer(text):
                if kind.valid(match[0]):
                    yield kind.name, f"{match[0][:SHOWN]}..."


def luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1)."""
    doubled = [int(d) * (2 if i % 2 else 1) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def iban(text: str) -> bool:
    """ISO 13616: the first four characters go last, letters are 10..35, and the number is 1 modulo 97."""
    ends = (text, text.rsplit(" ", 1)[0])  # the last group may be the next word
    return any(15 <= len(plain) <= 34 and _modulo(plain) == 1 for plain in (end.replace(" ", "") for end in ends))


def _modulo(plain: str) -> int:
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97


def _card(text: str) -> bool:
    digits = _digits(text)
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def _phone(text: str) -> bool:
    digits = _digits(text)
    return 9 <= len(digits) <= 15 and "555" not in digits and len(set(digits)) > 2  # 555 is fiction's exchange


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _address(text: str) -> bool:
    """A public IP address; private, loopback and documentation ranges are nobody's."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _token(text: str) -> bool:
    """A JSON web token: its first part is the base64 of a JSON object that names an algorithm."""
    head = text.split(".")[0]
    try:
        made = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:
        return False
    return isinstance(made, dict) and "alg" in made


def _any(text: str) -> bool:
    return True


_NUMERIC = re.compile(r"[0-9](?:[0-9A-Z]|[ .():/+-](?=[0-9A-Z(])){5,}")
BEFORE = 6  # characters around a number that its pattern looks at: a country, a plus sign, a word it is part of
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
NUMBERS = (
    Kind("iban", (), re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"), iban),
    Kind("card", (), re.compile(r"(?<![\w.-])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\w.-]*\d)"), _card),
    Kind("ip", (), re.compile(rf"(?<![\w.-])(?:{_BYTE}\.){{3}}{_BYTE}(?![\w-]|\.\d)"), _address),
    Kind(
        "phone",
        (),
        re.compile(
            r"(?<![\w.+-])(?:\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
            r"|(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4})(?![\w-])"
        ),
        _phone,
    ),
)
PERSONAL = (
    Kind(
        "email",
        ("@",),
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"),
        lambda text: not text.lower().endswith(DOCUMENTATION),
    ),
    Kind(
        "ip", ("::", ":0:", ":db8:"), re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){3,7}\b"), _address
    ),
)
SECRETS = (
    Kind("secret", ("sk-",), re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"), lambda text: len(set(text)) > 5),
    Kind("secret", ("AKIA",), re.compile(r"\bAKIA[0-9A-Z]{16}\b"), _any),
    Kind("secret", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b"), _any),
    Kind("secret", ("xox",), re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"), _any),
    Kind("secret", ("AIza",), re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"), _any),
    Kind("secret", ("eyJ",), re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"), _token),
    Kind("secret", ("PRIVATE KEY-----",), re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), _any),
)
