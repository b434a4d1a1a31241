"""What rows are generated from: nobody's template, and nothing that was prepared."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.collect import generate
from tunesmith.collect.generate import GenerateConfig
from tunesmith.collect.sources import read_sources
from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.errors import UsageError
from tunesmith.core.jsonl import read_jsonl, read_rows, write_rows
from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.parents import kinship

COLOURS = ("red", "green", "blue", "grey", "black")
ASKED = [f"Where is the {colour} lantern?" for colour in COLOURS]


def wrapped(asked: list[str], source: str = "faq.jsonl") -> list[Row]:
    texts = [f"### Question:\n{text}\n\n### Answer:" for text in asked]
    return [pair(text, "In the harbour.", meta=Meta(source, line)) for line, text in enumerate(texts, 1)]


def sealed(folder: Path, rows: list[Row], kind: str = "raw", file: str = "examples.jsonl") -> Artifact:
    final = folder / "data" / kind / "one"
    with writing(final) as work:
        write_rows(work / file, rows)
        return seal(work, final, kind, {})


def test_a_template_that_a_file_wears_is_taken_off_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = wrapped(ASKED)
    found = read_sources([sealed(tmp_path, rows)])
    assert [row.question for row in found.rows] == ASKED
    assert [found.collected[row.id] for row in found.rows] == [row.id for row in rows]
    assert [row.meta.group for row in found.rows] == [row.id for row in rows]
    assert "template taken off: faq.jsonl: ### Question / ### Answer" in capsys.readouterr().err


def test_a_row_without_a_template_stays_as_it_is(tmp_path: Path) -> None:
    rows = [pair(text, "Here.", meta=Meta("faq.jsonl", 1, group="g" * (n % 2))) for n, text in enumerate(ASKED)]
    assert read_sources([sealed(tmp_path, rows)]).rows == rows


def test_marks_that_cannot_be_taken_off_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*wrapped(ASKED[:4]), pair("bare", "A", meta=Meta("faq.jsonl", 5))]
    assert len(read_sources([sealed(tmp_path, rows)]).rows) == 5
    assert "4 of 5 rows hold the marks of a prompt template" in capsys.readouterr().err


def test_the_model_is_shown_no_template_and_children_stay_in_the_family_of_what_was_collected(
    serving: Any, tmp_path: Path
) -> None:
    rows = wrapped(ASKED)
    raw = sealed(tmp_path, rows)

    def brain(payload: dict[str, Any]) -> str:
        (colour,) = [colour for colour in COLOURS if f" {colour} lantern" in payload["messages"][0]["content"]]
        return json.dumps({"rows": [{"question": f"{' '.join([colour.upper()] * 6)} lantern {colour}, where?"}]})

    with serving(brain) as endpoint:
        config = GenerateConfig(base_url=endpoint.url, model="small", recipe="paraphrase", target=5)
        made = generate.run(config, [raw], tmp_path / "data" / "raw")
        named = config.model_copy(update={"ids": (rows[2].id[:8],), "target": 1})
        by_id = generate.run(named, [raw], tmp_path / "data" / "raw")
        assert not any("###" in payload["messages"][0]["content"] for payload in endpoint.payloads)
    assert all("lantern blue" in row.question for row in read_rows(by_id.path / "examples.jsonl"))
    ids = {row.id for row in rows}
    assert all(set(one["parents"]) <= ids for one in read_jsonl(made.path / "provenance.jsonl"))
    family = {kinship([raw, made]).adopt(row).meta.group for row in rows}
    assert {row.meta.group for row in read_rows(made.path / "examples.jsonl")} <= family


def test_a_prepared_set_is_refused_by_name_and_by_path(tmp_path: Path) -> None:
    made = sealed(tmp_path, wrapped(ASKED), "set", "train.jsonl")
    for given in (made, made.path):
        with pytest.raises(UsageError, match="rows are made from what was collected") as caught:
            read_sources([given])
        assert "leave it out" in caught.value.fix
