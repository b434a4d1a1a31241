import pytest

from tunesmith.collect.faq import is_faq, opens, read
from tunesmith.collect.record import Record


def seen(text: str) -> list[tuple[int, str, str]]:
    """(line, question, answer) of a record, (line, reason, '') of a reject."""
    found = []
    for item in read(text, "f"):
        pair = (item.value["question"], item.value["answer"]) if isinstance(item, Record) else (item.reason, "")
        found.append((item.line, *pair))
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# FAQ\n## Why?\nSo.\n\n### Note\nMore.\n## How?\nThus.\n",
         [(2, "Why?", "So.\n\n### Note\nMore."), (7, "How?", "Thus.")]),
        ("Why?\n====\nSo.\n\nHow?\n----\nThus.\n", [(1, "Why?", "So."), (5, "How?", "Thus.")]),
        ("Q: Why\nnow?\nA: So.\nStill.\n\nQ2. How?\nA2. Thus.",
         [(1, "Why\nnow?", "So.\nStill."), (6, "How?", "Thus.")]),
        ("**Q: Why?**\n**A:** So.\n", [(1, "Why?", "So.")]),
        ("**Question 1:** Why?\n\n**Answer:** So.\n", [(1, "Why?", "So.")]),
        ("1. **Why?**\n   So.\n2. **How?**\n   Thus.\n", [(1, "Why?", "So."), (3, "How?", "Thus.")]),
        ("<details>\n<summary><b>Why?</b></summary>\n\nSo.\n</details>\n", [(2, "Why?", "So.")]),
        ("## [Why?](#why) {#why}\nSo.\n---\n[Back to top](#top)\n", [(1, "Why?", "So.")]),
        ("## Why?\n```\n# not a heading?\n```\n", [(1, "Why?", "```\n# not a heading?\n```")]),
        ("---\ntitle: FAQ?\n---\n## Why?\nSo.\n", [(4, "Why?", "So.")]),
        ("Hello.\n\n## Why?\n\n## How?\nThus.\n## News\nNone.\n",
         [(1, "no_question", ""), (3, "no_answer", ""), (5, "How?", "Thus."), (7, "no_question", "")]),
    ],
)  # fmt: skip
def test_questions_get_what_stands_below_them(text: str, found: list[tuple[int, str, str]]) -> None:
    assert seen(text) == found


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("## Why?\nSo.\n## How?\nThus.\n", True),
        ("Q: Why?\nA: So.\n", True),
        ("# Is this a page?\nIt is one long text.\n", False),
        ("# Guide\nText.\n## Setup\nText.\n## Run\nText.\n## Why?\nSo.\n## How?\nThus.\n", False),
        ("Just a text. Is it? It is.\n", False),
        ("<details><summary>More code</summary>\nx\n</details>\n", False),
    ],
)
def test_a_page_with_more_parts_than_questions_is_a_document(text: str, answer: bool) -> None:
    assert is_faq(text) is answer


def test_a_table_does_not_open_as_a_faq() -> None:
    assert not opens("question,answer\n")
    assert not opens("Q,A\n")
    assert opens("Q: Why, then?\nA: So, there.\n")
