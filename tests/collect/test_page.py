import json

import pytest

from tunesmith.collect.page import pairs, plain, read
from tunesmith.collect.record import Record
from tunesmith.core.errors import DataError


def seen(body: str) -> list[tuple[str, str]]:
    return [(pair.question, pair.answer) for pair in pairs(f"<html><body>{body}</body></html>")]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("<h2>Why?</h2><p>So.</p><ul><li>one</li><li>two</li></ul><h2>News</h2><p>None.</p>",
         [("Why?", "So.\n\n- one\n- two")]),
        ("<h2>Why?</h2><p>So.</p><h3>Note</h3><p>More.</p><h2>How?</h2>Thus.",
         [("Why?", "So.\n\nNote\n\nMore."), ("How?", "Thus.")]),
        ("<dl><dt>Why?</dt><dd>So.</dd><dd>And so.</dd><dt>Term</dt><dd>Other.</dd></dl>",
         [("Why?", "So.\n\nAnd so.")]),
        ("<details><summary>Why?</summary><p>A &amp; B &lt;3</p></details><p>Tail.</p>", [("Why?", "A & B <3")]),
        ("<h3><button>Why?</button></h3><div>So.</div><footer>Contact us?</footer>", [("Why?", "So.")]),
        ("<h2>Why?</h2><pre>a\n  b</pre><script>x?</script><style>y</style>", [("Why?", "a\nb")]),
        ("<h2>Why?</h2>", [("Why?", "")]),
        ("<h1>404 Not Found</h1><p>Where did it go?</p>", []),
        ("<![oops<h2>Why?</h2>So.", []),
    ],
)  # fmt: skip
def test_questions_on_a_page_get_the_text_below_them(body: str, found: list[tuple[str, str]]) -> None:
    assert seen(body) == found


QUESTION = {
    "@type": "Question",
    "name": "Why?",
    "acceptedAnswer": {"@type": "Answer", "text": "<p>So.</p><p>Still.</p>"},
}


@pytest.mark.parametrize(
    "data",
    [
        {"@context": "https://schema.org", "@type": "FAQPage", "mainEntity": [QUESTION]},
        {"@graph": [{"@type": "WebPage"}, {"@type": ["WebPage", "FAQPage"], "mainEntity": QUESTION}]},
        [{"@type": "QAPage", "mainEntity": {**QUESTION, "acceptedAnswer": [QUESTION["acceptedAnswer"]]}}],
    ],
)
def test_what_a_page_states_of_itself_wins_over_what_it_shows(data: object) -> None:
    script = f'<script type="application/ld+json">{json.dumps(data)}</script>'
    assert seen(f"{script}<h2>WHY?</h2>Shown.<h2>How?</h2>Thus.") == [("Why?", "So.\n\nStill."), ("How?", "Thus.")]


def test_a_question_elsewhere_in_the_data_is_none_of_a_faq() -> None:
    open_ = '<script type="application/ld+json">'
    assert seen(f"{open_}{json.dumps(QUESTION)}</script>{open_}{{</script>") == []


def test_each_question_has_its_line_and_one_without_answer_is_rejected() -> None:
    found = list(read("<html>\n<h2>Why?</h2>\nSo.\n<h2>How?</h2>\n</html>", "f"))
    assert [(item.line, isinstance(item, Record)) for item in found] == [(2, True), (4, False)]


def test_a_page_too_large_to_be_one_is_refused() -> None:
    with pytest.raises(DataError, match="size"):
        list(read("<html>" + "x" * (9 << 20), "f"))


def test_plain_text_stays_as_it_is() -> None:
    assert plain(" 1 > 0 ") == "1 > 0"
    assert plain("a<br>b &eacute;") == "a\nb é"
