import re
from html.parser import HTMLParser
from typing import Any

from tunesmith.core.records import Meta, pair
from tunesmith.engine.base import Generation
from tunesmith.evaluate.page import curve, examples, render, sentence
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
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in html


def test_the_figures_are_on_the_page() -> None:
    html = page(make_items(["alpha beta"] * 9, arms={"majority": "beta"}))
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "9 of the 9 rows of the test split, in 9 groups." in text
    assert "Tuned against base: better on f1, rouge1." in text
    # 9 equal items: 0.025 ** (1 / 9) = 0.6637; the difference 1 - 2 * (1 - 0.6637) = 0.327
    assert "f1 0.000 [0.000, 0.336] 1.000 [0.664, 1.000] +1.000 [+0.327, +1.000]" in text
    assert "Tuned against majority" in text
    assert "misspelling 0.0&nbsp;% 0.0&nbsp;%" in text
    assert "set-1 aaaaaaaaaaaa" in text


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


def test_the_curve_is_the_same_bytes_each_time_and_says_what_it_shows() -> None:
    svg = curve(LOG)
    assert svg == curve(LOG)
    assert svg is not None
    assert "<title>Loss curve</title>" in svg
    assert "<desc>training loss from 2.500 to 1.250; validation loss from 1.500 to 1.500.</desc>" in svg
    assert 'role="img"' in svg
    assert "<style" not in svg


def test_without_a_logged_loss_there_is_no_curve() -> None:
    assert curve([]) is None
    assert curve([{"step": 1, "train_loss": None}]) is None
    assert "No training run with a loss was given." in page(make_items(["alpha"]), [])


def test_the_sentence_says_no_more_than_the_verdicts() -> None:
    cells = {name: {"n": 3, "verdict": v} for name, v in (("f1", "better"), ("rouge1", "cannot tell"))}
    cells |= {"exact_match": {"n": 3, "verdict": "worse"}, "length_ratio": {"n": 3, "verdict": None}}
    cells |= {"fields": {"n": 0, "verdict": "cannot tell"}, "rouge1_recall": {"n": 3, "verdict": "better"}}
    said = sentence({"metrics": cells})
    assert said == "Tuned against base: better on f1; worse on exact_match; cannot tell on rouge1."
    assert sentence({"metrics": {}}) == "Tuned against base: nothing was measured."
