"""A training row on the terminal is what training sees of it: its tokens, its mask, and what is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith import loop
from tunesmith.core.artifact import open_artifact
from tunesmith.core.errors import UsageError
from tunesmith.core.jsonl import read_rows
from tunesmith.core.project import Project
from tunesmith.token_view import row_view

GREEN, RED, BACK = "\x1b[32m", "\x1b[31m", "\x1b[0m"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama_dir: Path) -> Any:
    """`make(rows)`: a project of these rows, all in the training split, over a base with a context of 128 tokens."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))

    def of(rows: list[dict[str, Any]]) -> Project:
        found = loop.new(tmp_path / "faq", str(llama_dir))
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        loop.collect(found, [tmp_path / "rows.jsonl"])
        loop.prepare(found, valid_fraction=0.0, test_fraction=0.0)
        return found

    return of


@pytest.fixture
def project(make: Any) -> Project:
    """Rows of two turns."""
    turns = [[("user", f"{thing}?"), ("assistant", "Here."), ("user", "Now?"), ("assistant", "No.")] for thing in "abc"]
    found: Project = make([{"messages": [{"role": r, "content": c} for r, c in row]} for row in turns])
    return found


def change(project: Project, *lines: str) -> Project:
    """The project with lines of its [train] section written in."""
    file = project.path / "tunesmith.toml"
    text = file.read_text()
    for line in lines:
        key = line.split(" =")[0]
        old = next(one for one in text.splitlines() if one.removeprefix("# ").startswith(f"{key} ="))
        text = text.replace(old, line)
    file.write_text(text)
    return loop.open_project(project.path)


def number_of(project: Project, question: str) -> int:
    (set_,) = project.place("set").glob("[!.]*")
    rows = list(read_rows(set_ / "train.jsonl"))
    return 1 + next(place for place, row in enumerate(rows) if row.text or row.question.startswith(question))


def row_text(project: Project, number: int = 1, colour: bool = False) -> str:
    return row_view(project, None, number, colour=colour)[1]


def test_a_row_is_shown_with_the_template_and_the_mask_that_training_uses(project: Project) -> None:
    (set_,) = project.place("set").glob("[!.]*")
    asked = next(read_rows(set_ / "train.jsonl")).messages[0].content
    head, tail = f"<s>### Question:\n{asked}\n\n### Answer:\n", "\n### Question:\nNow?\n\n### Answer:\n"
    assert row_text(project).startswith(f"{head}[Here.</s>]{tail}[No.</s>]")
    assert row_text(project, colour=True).startswith(f"{head}{GREEN}Here.</s>{BACK}{tail}{GREEN}No.</s>{BACK}")
    file = project.path / "tunesmith.toml"
    file.write_text(file.read_text().replace('train_on = "completion"', 'train_on = "last"'))
    assert row_text(loop.open_project(project.path)).startswith(f"{head}Here.</s>{tail}[No.</s>]")


def test_a_row_is_shown_with_a_template_file_of_the_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{% for m in messages %}{{ m['role'][0] }}={{ m['content'] }}"
    source += "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    source += "{% if add_generation_prompt %}a={% endif %}"
    (project.path / "mine.jinja").write_text(source)
    file = project.path / "tunesmith.toml"
    file.write_text(file.read_text().replace('template = "auto"', 'template = "mine.jinja"'))
    monkeypatch.chdir("/")
    assert "?a=[Here.</s>]u=Now?a=[No.</s>]" in row_text(loop.open_project(project.path))


@pytest.mark.parametrize("number", [0, 4, -1])
def test_a_row_that_is_not_there_is_told_with_those_that_are(project: Project, number: int) -> None:
    with pytest.raises(UsageError) as error:
        row_text(project, number)
    assert error.value.expected == "1 to 3"


LONG = "Summarise this.\n\n" + " ".join(f"word{n}" for n in range(60))


def test_a_row_that_is_too_long_is_shown_up_to_the_limit_and_what_lies_beyond_is_marked(make: Any) -> None:
    project = make([{"question": LONG, "answer": "It counts."}, {"question": "Why?", "answer": "So."}])
    number = number_of(project, "Summarise")
    facts, text = row_view(project, None, number, colour=False)
    assert (facts["action"], facts["max_length"], facts["examples"]) == ("too_long", 128, [])
    assert facts["tokens"] > 128
    rendered = text.split("\ntoo long: ")[0]
    shown, beyond = rendered.rstrip("}").split("{")
    assert "[" not in rendered
    assert (shown + beyond).endswith("### Answer:\nIt counts.</s>\n")
    assert f"{facts['tokens'] - 128} tokens too many: the row is not trained" in text
    assert "max_length 128: all that the base takes; over_length = skip" in text
    assert f"{RED}" in row_view(project, None, number, colour=True)[1]


def test_a_row_whose_context_is_cut_is_shown_as_it_is_trained_with_the_place_marked(make: Any) -> None:
    project = make([{"question": LONG, "answer": "It counts."}, {"question": "Why?", "answer": "So."}])
    project = change(project, 'over_length = "trim-context"', "max_length = 120")
    number = number_of(project, "Summarise")
    facts, text = row_view(project, None, number, colour=False)
    ((before, _, after),) = [text.split("\n(")[0].partition("{ [...] }")]
    assert before.endswith(LONG[: facts["start"]].rstrip())
    assert after.startswith(LONG[facts["end"] :].lstrip())
    assert after.endswith("[It counts.</s>]\n")
    assert LONG[facts["start"] : facts["end"]] == facts["removed"]
    (example,) = facts["examples"]
    assert len(example["ids"]) == len(example["mask"]) <= 120
    assert facts["truncated_tokens"] == facts["tokens"] - len(example["ids"]) > 0
    assert "max_length 120: as set; over_length = trim-context" in text
    assert f"{RED} [...] {BACK}" in row_view(project, None, number, colour=True)[1]


def test_a_text_that_is_split_is_shown_in_the_pieces_that_are_trained(make: Any) -> None:
    project = change(make([{"text": LONG}]), 'over_length = "split"')
    facts, text = row_view(project, None, 1, colour=False)
    assert facts["action"] == "split"
    assert len(facts["examples"]) == len(facts["pieces"]) > 1
    assert "".join(line for line in text.split("tokens are trained)")[0]).startswith("[<s>Summarise this.")
    assert text.count("tokens are trained)") == len(facts["pieces"])


def test_a_row_without_an_answer_is_told_to_be_left_out(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith import token_view
    from tunesmith.train.data import Rendered

    monkeypatch.setattr(token_view, "render", lambda rows, _: [Rendered(r, (), "no_answer", "none") for r in rows])
    facts, text = row_view(project, None, 1, colour=False)
    assert (facts["action"], facts["examples"]) == ("no_answer", [])
    assert text == "not trained: no_answer (none)"


def test_the_view_shows_the_very_examples_and_the_limit_that_a_run_is_trained_with(make: Any) -> None:
    """Under the limit that is decided when the file says nothing, and with one row cut and one left out."""
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(8)]
    answer = "It goes on. " * 40
    project = make([*rows, {"question": LONG, "answer": "It counts."}, {"question": "Why?", "answer": answer}])
    project = change(project, 'over_length = "trim-context"')
    shown = [row_view(project, None, number, colour=False)[0] for number in range(1, 11)]
    run = loop.train(project, max_steps=1)
    assert open_artifact(run.path, "run").facts["rows"] == {
        "in": 10,
        "train": 9,
        "valid": 0,
        "skipped": {"too_long": 1},
        "fitted": {"trimmed": 1},
    }
    assert {facts["max_length"] for facts in shown} == {run.facts["config"]["max_length"]} == {128}
    lengths = [len(example["ids"]) for facts in shown for example in facts["examples"]]
    trained = [sum(example["mask"][1:]) for facts in shown for example in facts["examples"]]
    assert sum(lengths) == run.facts["tokens_an_epoch"]
    assert sum(trained) == run.facts["trained_tokens_an_epoch"]
    for name, action in (("skipped", "too_long"), ("fitted", "trimmed")):
        (note,) = [json.loads(line) for line in (run.path / f"{name}.jsonl").read_text().splitlines()]
        assert note["id"] == next(facts["id"] for facts in shown if facts["action"] == action)
