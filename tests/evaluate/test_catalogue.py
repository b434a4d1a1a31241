import pytest

from tunesmith.evaluate.catalogue import METRICS, UNASKED, check, headline, meaning
from tunesmith.evaluate.stage import DEFAULT


@pytest.mark.parametrize("name", [*DEFAULT, "bleu", "similarity", "regex:^a:b$", "json_schema:a.json", "dir/my.py:f"])
def test_names_that_can_be_scored(name: str) -> None:
    assert check(name) == name
    assert headline(name)
    assert meaning(name).text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("blue", "there is no metric 'blue': did you mean 'bleu'"),
        ("rogueL", "did you mean 'rougeL'"),
        ("regex:(", "is no regular expression"),
        ("regex:", "there is no metric"),
        ("schema:x.json", "there is no metric"),
        ("my.py", "there is no metric"),
        ("guard_recall", "there is no metric"),
    ],
)
def test_names_that_cannot(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(name)


def test_parts_of_a_rouge_are_no_headlines() -> None:
    assert not headline("rougeL_recall")
    assert meaning("rougeL_recall").text == "the recall of rougeL"


def test_every_metric_that_can_be_asked_for_is_scored_somewhere() -> None:
    without = {name for name, metric in METRICS.items() if metric.function is None} - UNASKED
    rouges = {name for name in without if name.startswith("rouge")}
    measured = {"similarity", "similarity_lexical", "perplexity", "bpb", "output_tokens", "latency_ms"}
    assert without == rouges | measured | {"label", "label_valid"}
