import re
from html.parser import HTMLParser
from typing import Any

from tunesmith.core.records import Meta, pair
from tunesmith.engine.base import Generation
from tunesmith.evaluate.page import examples, heading, markdown, render, sentences
from tunesmith.evaluate.report import build
from tunesmith.evaluate.score import Item, Scorer
from tunesmith.metrics.style import Vocabulary, detectors

ENGLISH = Vocabulary.of(["alpha beta gamma delta"])
LOG = [
    {"step": 1, "train_loss": 2.5, "learning_rate": 0.1},
    {"step": 2, "train_loss": 1.25},
    {"step": 2, "val_loss": 1.5},
    {"step": 3, "train_loss": None},
]
FACTS = {
    "name": "eval-1",
    "split": "test",
    "rows": 9,
    "skipped": {},
    "max_new_tokens": 20,
    "seed": 0,
    "parents": {"set": {"name": "set-1", "hash": "a" * 64}},
    "template": "b" * 64,
}
VOID = {"meta", "br", "path", "use", "rect"}


class Balance(HTMLParser):
    """Collects the elements, and complains about one that is closed out of turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def make_items(tuned: list[str], base: str = "gamma", arms: dict[str, str] | None = None) -> list[Item]:
    scorer = Scorer(["f1", "length_ratio", "rouge1"], frozenset(), ENGLISH)
    rows = [pair(f"q{n}", "alpha beta", meta=Meta("faq.csv", n + 2, group=f"g{n}")) for n in range(len(tuned))]
    before = Generation(base, (), "stop")
    return [scorer.item(r, before, Generation(t, (), "stop"), arms or {}) for r, t in zip(rows, tuned, strict=True)]


def page(items: list[Item], log: list[dict[str, Any]] = LOG, vocabulary: Vocabulary = ENGLISH) -> str:
    return render(build(items, detectors(vocabulary), FACTS, 0), items, log)


def test_the_page_is_well_formed_and_asks_for_nothing() -> None:
    html = page(make_items(["alpha beta", "alpha", "gamma"] * 3, arms={"majority": "beta"}))
    reader = Balance()
    reader.feed(html)
    assert reader.open == []
    assert html.startswith("<!doctype html>")
    tags = {tag for tag, _ in reader.seen}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    fetched = [attrs for _, attrs in reader.seen if attrs.keys() & {"src", "href", "xlink:href"}]
    assert all(str(attrs.get("xlink:href", "")).startswith("#") for attrs in fetched)
    assert "http://" not in html
    assert "https://" not in html
    assert "url(http" not in html
    assert "prefers-color-scheme: dark" in html
    assert "width=device-width" in html


def test_what_models_and_people_write_is_escaped() -> None:
    evil = '<script>alert("x")</script>'
    items = make_items([evil, evil], base="<img src=x onerror=y>", arms={"<b>arm</b>": "</pre><b>"})
    html = page(items)
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>" not in html
    assert "&lt;<mark>script&gt;alert(&#34;x&#34;)&lt;/script</mark>&gt;" in html


def test_the_figures_are_on_the_page() -> None:
    html = page(make_items(["alpha beta"] * 9, arms={"majority": "beta"}))
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "eval-1: tuned is better than its base on 2 of 2 scores" in text
    assert "9 of the 9 rows of the test split, in 9 groups of similar rows; left out: none" in text
    assert "Tuned against base: better on f1 (0.000 to 1.000), rouge1 (0.000 to 1.000)." in text
    # 9 equal items: 0.025 ** (1 / 9) = 0.6637; the difference 1 - 2 * (1 - 0.6637) = 0.327
    assert "f1 0.000 [0.000, 0.336] 1.000 [0.664, 1.000] +1.000 [+0.327, +1.000]" in text
    assert "Tuned against majority" in text
    assert "misspelling 0.0&nbsp;% 0.0&nbsp;%" in text
    assert "set: set-1, aaaaaaaaaaaa" in text


def test_examples_are_best_first_then_worst_first_and_never_twice() -> None:
    items = make_items(["gamma", "alpha beta", "alpha", "delta delta", "alpha beta"], base="alpha")
    best, worst = examples(items)
    assert [i.tuned.text for i in best] == ["alpha beta", "alpha beta", "alpha"]
    assert [i.tuned.text for i in worst] == ["delta delta", "gamma"]
    assert examples(items[:1]) == (items[:1], [])
    many = make_items(["alpha"] * 40)
    assert [len(part) for part in examples(many)] == [8, 8]


def test_evidence_of_an_error_stands_beside_the_answer() -> None:
    html = page(make_items(["alpah beta"]))
    assert "misspelling: alpah" in html


def test_a_check_that_did_not_run_says_so() -> None:
    german = Vocabulary.of(["der schnelle braune fuchs springt hoch"])
    assert "Misspelling: NOT RUN" in page(make_items(["alpha"]), vocabulary=german)
    assert "NOT RUN" not in page(make_items(["alpha"]))


def test_the_curve_is_drawn_from_the_log() -> None:
    html = page(make_items(["alpha"]))
    assert "<title>Loss curve</title>" in html
    assert "training loss from 2.5 at step 1 to 1.25 at step 2" in html


def test_without_a_logged_loss_there_is_no_curve() -> None:
    assert "No training run with a loss was given." in page(make_items(["alpha"]), [])


CELL = {"n": 3, "base": 0.25, "tuned": 0.5, "arms": {"bm25": {"n": 3, "verdict": "worse", "base": 0.75, "tuned": 0.5}}}
PART = {"metrics": {}, "arms": [], "errors": {}, "n": 3}


def test_the_words_say_no_more_than_the_verdicts() -> None:
    cells = {name: CELL | {"verdict": v} for name, v in (("f1", "better"), ("rouge1", "cannot tell"))}
    cells |= {"exact_match": CELL | {"verdict": "worse"}, "length_ratio": CELL | {"verdict": None}}
    cells |= {"fields": CELL | {"n": 0, "verdict": "cannot tell"}, "rouge1_recall": CELL | {"verdict": "better"}}
    report = PART | {"metrics": cells, "arms": ["bm25"], "errors": {"empty": CELL | {"verdict": "better"}}}
    assert heading(report) == "tuned is better than its base on 1 of 3 scores and worse than its base on 1 of 3 scores"
    base, bm25, errors = sentences(report)
    seen = "(0.250 to 0.500)"
    assert (
        base == f"Tuned against base: better on f1 {seen}; worse on exact_match {seen}; cannot tell on rouge1 {seen}."
    )
    assert bm25.startswith("Tuned against bm25: worse on f1 (0.750 to 0.500), rouge1")
    assert errors == f"Errors of tuned against base: better on empty {seen}."
    assert heading(PART) == "whether tuned is better than its base cannot be told from these 3 rows"
    assert sentences(PART)[0] == "Tuned against base: nothing was measured."


def test_what_an_answer_says_otherwise_than_the_reference_is_underlined() -> None:
    html = page(make_items(["alpha delta beta"]))
    assert "<pre>alpha <mark>delta</mark> beta</pre>" in html


def test_the_markdown_page_has_the_same_verdict_figures_and_sources() -> None:
    items = make_items(["alpha beta"] * 9, arms={"majority": "beta"})
    text = markdown(build(items, detectors(ENGLISH), FACTS, 0), items)
    assert text.startswith("# eval-1: tuned is better than its base on 2 of 2 scores\n")
    assert "| f1 | 0.000 | 1.000 | +1.000 [+0.327, +1.000] | 0.0039 | better | 9 |" in text  # 2 of 2 ** 9 patterns
    assert "## Tuned against majority" in text
    assert (
        "- faq.csv:2 (+1.000)\n  - question: q0\n  - reference: alpha beta\n  - base: gamma\n  - tuned: alpha beta\n"
        in text
    )
    assert "- set: set-1, aaaaaaaaaaaa" in text
