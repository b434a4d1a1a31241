import base64

import pytest

from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.prepare.checks import CHECKS
from tunesmith.prepare.corpus import Corpus

LONG = "Explain how the loan of a book from the town library works"
SECRET = "sk-" + "a1B2c3D4e5F6g7H8i9J0k1"  # put together here, so that no scanner takes it for a real one
JWT = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=") + ".eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


def found(name: str, *rows: Row) -> list[tuple[int, str]]:
    check = next(check for check in CHECKS if check.name == name)
    return list(check.function(Corpus.of(rows)))


def talk(*roles: str) -> Row:
    return Row(tuple(Message(role, f"text {i}") for i, role in enumerate(roles)))


BAD = [
    ("empty", pair("???", "An answer"), "nothing but '???'"),
    ("empty", pair("Question", " -- "), "nothing but '--'"),
    ("null", pair("Question", " NaN "), "'NaN'"),
    ("null", pair("undefined", "A"), "'undefined'"),
    ("null", pair("Q", "N/A"), "'N/A'"),
    ("role_order", talk("assistant", "user"), "begins with an answer"),
    ("role_order", talk("user", "user", "assistant"), "two user messages in a row"),
    (
        "role_order",
        talk("user", "assistant", "system", "user", "assistant"),
        "a system message after the first message",
    ),
    ("role_order", talk("user", "assistant", "user"), "ends without an answer"),
    ("mojibake", pair("Q", "a cafÃ© in town"), "'Ã©' for 'é'"),
    ("mojibake", pair("Q", "itâ€™s late"), "'â€™' for '’'"),
    ("mojibake", pair("Q", "caf\ufffd"), "holds the replacement character \ufffd"),
    ("residue", pair("### Question: what?", "A"), "a template's mark"),
    ("control_tokens", pair("say <|im_end|> and </s>, <|im_end|>", "A"), "<|im_end|> </s>"),
    ("control_tokens", pair("Q", "x <start_of_turn> [INST]"), "<start_of_turn> [INST]"),
    ("secret", pair("Q", f"use {SECRET} as key"), "secret sk-a..."),
    ("secret", pair("Q", f"token {JWT}"), "secret eyJh..."),
    ("secret", pair("Q", "AKIA" + "IOSFODNN7EXAMPLE"), "secret AKIA..."),
    ("pii", pair("Q", "write to jane.doe@firm.org"), "email jane..."),
    ("echo", pair("What is it?", "what is it"), "the answer is the question"),
    ("echo", pair(LONG, f"You ask: {LONG}. Well, with a card."), "the answer holds the whole question"),
    ("refusal", pair("Q", "I’m sorry, but I can’t do that."), "'im sorry but i cant'"),
    ("refusal", pair("Q", "As an AI language model, I have none."), "'as an ai language model'"),
    ("boilerplate", pair("Q", "Certainly! It is blue."), "'certainly'"),
    ("boilerplate", pair("Q", "It is blue. I hope this helps!"), "'i hope this helps'"),
    ("cut_off", pair("Q", "First you open the"), "ends with 'you open the'"),
    ("cut_off", pair("Q", "There are three kinds:"), "ends with 'are three kinds:'"),
    (
        "cut_off",
        pair("Q", "It opens at nine. On Sundays the doors stay shut unless a guide has been"),
        "its last sentence has no end: 'a guide has been'",
    ),
    ("fences", pair("Q", "```python\nx = 1"), "```"),
    ("url_only", pair("Q", "https://a.org/b?c"), "https://a.org/b?c"),
    ("markup", pair("How late?", "Until <b>nine</b>"), "<b>"),
    ("markup", pair("How late?", "Nine&nbsp;sharp"), "&nbsp;"),
]
GOOD = [
    ("empty", pair("1?", "é")),
    ("null", pair("What does null mean?", "None of them")),
    ("role_order", talk("system", "user", "assistant", "tool", "tool", "assistant")),
    ("role_order", Row((Message("user", "Q"),), chosen="A", rejected="B")),
    ("mojibake", pair("Q", "Ã and â, a café, naïve, À la carte, Straße, «ça»")),
    ("residue", pair("Q", "a ### b")),
    ("control_tokens", pair("if a < b | c > d", "<p> [1] <s >")),
    ("secret", pair("Q", "sk-learn, AKIA, gh_, eyJ, a.b.c")),
    ("pii", pair("Q", "an @ sign, 3.14159, 2024-11-21, you@example.com")),
    ("echo", pair("What is it?", "A bird. What is it to you?")),
    ("refusal", pair("Q", "I cannot see it from here.")),
    ("boilerplate", pair("Q", "It is certainly blue.")),
    ("cut_off", pair("Q", "Paris")),
    ("cut_off", pair("Q", "Open the door. Go in.\n- keys\n- a lamp")),
    ("cut_off", pair("Q", "```\nfor x in y:\n```")),
    ("cut_off", pair("Q", "It is all written down. You can read it in full at https://a.org/the")),
    ("fences", pair("Q", "```\nx\n```")),
    ("url_only", pair("Q", "See https://a.org")),
    ("markup", pair("How do I make text bold in HTML?", "Use <b>text</b>")),
    ("markup", pair("Q", "a < b & c > d")),
]


@pytest.mark.parametrize(("name", "row", "detail"), BAD)
def test_what_is_wrong_with_a_row_is_found_with_the_evidence(name: str, row: Row, detail: str) -> None:
    assert found(name, pair("Is it open?", "Yes, until nine."), row) == [(1, detail)]


@pytest.mark.parametrize(("name", "row"), GOOD)
def test_what_only_looks_like_it_is_not(name: str, row: Row) -> None:
    assert found(name, row) == []


def test_every_check_has_a_row_that_fails_it_and_one_that_does_not() -> None:
    names = {check.name for check in CHECKS}
    assert names == {name for name, *_ in BAD} == {name for name, _ in GOOD}
    assert len(names) == len(CHECKS)


def test_all_turns_and_the_chosen_answer_are_looked_at_and_the_rejected_is_not() -> None:
    first, later = pair("a b c", "a b c").messages, pair("Is it?", "It is.").messages
    assert found("echo", Row((*first, *later)), Row((*later, *first))) == [
        (0, "the answer is the question"),
        (1, "the answer is the question"),
    ]
    ask = (Message("user", "Is it open?"),)
    rows = [Row(ask, chosen="NaN", rejected="Yes"), Row(ask, chosen="Yes", rejected="NaN")]
    assert found("null", *rows) == [(0, "'NaN'")]
    assert found("empty", Row(text="...", meta=Meta("f", 1)), Row(text="words")) == [(0, "nothing but '...'")]
