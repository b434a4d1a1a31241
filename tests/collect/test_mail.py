import pytest

from tunesmith.collect.mail import read
from tunesmith.collect.record import Record
from tunesmith.collect.unpack import memory
from tunesmith.core.records import Reject


def letter(sender: str, subject: str, body: str, *headers: str) -> str:
    head = "\n".join([f"From: {sender}", f"Subject: {subject}", *headers])
    return f"From {sender} Mon Jan  1 00:00:00 2024\n{head}\n\n{body}\n\n"


def found(*letters: str | bytes) -> list[Record | Reject]:
    data = b"".join(text.encode() if isinstance(text, str) else text for text in letters)
    return list(read(memory(data, "box"), "box"))


def pairs(*letters: str | bytes) -> list[tuple[str, str]]:
    return [(i.value["question"], i.value["answer"]) for i in found(*letters) if isinstance(i, Record)]


def reasons(*letters: str | bytes) -> list[tuple[int, str]]:
    return [(item.line, item.reason) for item in found(*letters) if isinstance(item, Reject)]


ASK = letter("ann@x.y", "Help", "Where is it?", "Message-ID: <1@x>", "Date: Mon, 1 Jan 2024 10:00:00 +0000")
REPLY = letter("bob@x.y", "Re: Help", "There.", "In-Reply-To: <1@x>", "Date: Mon, 1 Jan 2024 11:00:00 +0000")
LATER = letter(
    "Cy <cy@x.y>", "AW: Help", "No, here.", "References: <0@x> <1@x>", "Date: Mon, 1 Jan 2024 12:00:00 +0000"
)
THANKS = letter("ann@x.y", "Re: Help", "Thanks!", "In-Reply-To: <1@x>", "Date: Mon, 1 Jan 2024 13:00:00 +0000")


def test_a_thread_is_its_first_message_and_the_last_by_another_person() -> None:
    (made, *rest) = found(ASK, REPLY, LATER, THANKS)
    assert isinstance(made, Record)
    assert made.value == {"question": "Help\n\nWhere is it?", "answer": "No, here.", "meta": {"group": "<1@x>"}}
    assert [(item.line, item.reason) for item in rest if isinstance(item, Reject)] == [
        (9, "not_needed"),
        (25, "not_needed"),
    ]


def test_the_dates_and_not_the_order_in_the_file_decide() -> None:
    assert pairs(LATER, THANKS, REPLY, ASK) == pairs(ASK, REPLY, LATER, THANKS)


def test_an_answer_whose_ids_are_lost_is_found_by_its_subject() -> None:
    stray = letter("bob@x.y", "Re: [list] Help", "There.", "In-Reply-To: <gone@x>")
    assert pairs(ASK, stray) == [("Help\n\nWhere is it?", "There.")]
    other = letter("dan@x.y", "Help", "Me too?")
    assert pairs(ASK, other, stray) == []  # two questions of one subject: whose answer it is, nobody can say


def test_a_thread_without_an_answer_is_rejected_message_by_message() -> None:
    assert reasons(ASK, THANKS) == [(1, "no_reply"), (9, "no_reply")]


@pytest.mark.parametrize(
    ("header", "body", "reason"),
    [
        ("Auto-Submitted: auto-replied", "I am away.", "automatic"),
        ("Precedence: bulk", "News.", "automatic"),
        ("X: y", "> only quotes\n", "empty"),
    ],
)
def test_what_no_person_wrote_is_rejected(header: str, body: str, reason: str) -> None:
    assert reasons(letter("bob@x.y", "Re: Help", body, header)) == [(1, reason)]


@pytest.mark.parametrize(
    "body",
    [
        "There.\n\nOn Mon, Ann wrote:\n> Where?\n> It is?",
        "There.\n\nOn Monday, 1 January 2024 at 10:00,\nAnn <ann@x.y> wrote:\n\n> Where?",
        "There.\n-- \nBob\nThe Company",
        "There.\n\n-----Original Message-----\nFrom: Ann\n\nWhere?",
        "There.\n________________________________\nFrom: Ann <ann@x.y>\nWhere?",
        "There.\n\nFrom: Ann <ann@x.y>\nSent: Monday\nWhere?",
        "There.\n\nSent from my phone",
        "There.\n\nAm 1. Januar schrieb Ann:\n> Wo?",
    ],
)
def test_quotes_and_signatures_are_taken_off(body: str) -> None:
    answer = letter("bob@x.y", "Re: Help", body, "In-Reply-To: <1@x>")
    assert pairs(ASK, answer)[0][1] == "There."


def test_an_answer_between_quotes_keeps_its_words() -> None:
    answer = letter("bob@x.y", "Re: Help", "> Where is it?\nThere.\n> Sure?\nYes.", "In-Reply-To: <1@x>")
    assert pairs(ASK, answer)[0][1] == "There.\nYes."


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable", b"Caf=E9."),
        ("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64", b"Q2Fmw6ku"),
        ("Content-Type: text/html; charset=utf-8", "<p>Café.</p>".encode()),
        ("Content-Type: multipart/alternative; boundary=b",
         "--b\nContent-Type: text/html\n\n<p>no</p>\n"
         "--b\nContent-Type: text/plain; charset=utf-8\n\nCafé.\n--b--".encode()),
        ("Content-Type: text/plain; charset=nonsense", "Café.".encode()),
    ],
)  # fmt: skip
def test_bodies_are_decoded(headers: str, body: bytes) -> None:
    answer = letter("bob@x.y", "Re: Help", "@@", "In-Reply-To: <1@x>", headers).encode().replace(b"@@", body)
    assert pairs(ASK, answer)[0][1] == "Café."


def test_encoded_subjects_are_read_and_damaged_ones_do_not_stop_it() -> None:
    ask = letter("ann@x.y", "=?utf-8?B?SGlsZmU/?=", "Wo?", "Message-ID: <1@x>")
    assert pairs(ask, REPLY)[0][0] == "Hilfe?\n\nWo?"
    assert pairs(ask.replace("SGlsZmU/", "x"), REPLY)[0][1] == "There."
