import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_jsonl, read_rows, write_jsonl, write_rows
from tunesmith.core.records import Message, Meta, Reject, Row, pair
from tunesmith.prepare import sharded, stage
from tunesmith.prepare.shards import Job, run_local, run_rank
from tunesmith.prepare.split import SPLITS
from tunesmith.prepare.stage import PrepareConfig

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
FILES = (*(f"{side}.jsonl" for side in SPLITS), "rejects.jsonl")
WORDS = ["reset", "password", "how", "the", "account", "delete", "app", "new"]


def one_process(job: Job) -> None:
    run_local(job, 1)


def raw(folder: Path, rows: list[Row], rejects: int = 0, provenance: list[dict[str, Any]] | None = None) -> Artifact:
    final = folder / uuid.uuid4().hex
    with writing(final) as work:
        write_rows(work / "examples.jsonl", rows)
        write_jsonl(work / "rejects.jsonl", (Reject("f", i, "malformed").to_json() for i in range(rejects)))
        if provenance:
            write_jsonl(work / "provenance.jsonl", provenance)
        return seal(work, final, "raw", {})


def contents(made: Artifact) -> dict[str, bytes]:
    return {name: (made.path / name).read_bytes() for name in FILES}


def questions(count: int) -> list[Row]:
    texts = [f"{chr(97 + i % 26) * 5} {chr(97 + i * 7 % 26) * 6} {i * 7919}" for i in range(count)]
    return [pair(text, f"answer {i}", meta=Meta("f", i)) for i, text in enumerate(texts, 1)]


def _pair(text: str, i: int) -> Row:
    return pair(text, f"A{i % 3}", meta=Meta("f", i, group="g" * (i % 5 == 0)))


def _wrapped(text: str, i: int) -> Row:
    return pair(f"[INST] {text} [/INST]", f"A{i % 2}</s>", meta=Meta("fg"[i % 2], i))


def _text(text: str, i: int) -> Row:
    return Row(text=text or "empty", meta=Meta("f", i))


def _chosen(text: str, i: int) -> Row:
    return Row((Message("user", text),), chosen="A", rejected=f"B{i % 2}", meta=Meta("f", i))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=30),
    st.sampled_from([_pair, _wrapped, _text, _chosen]),
    st.integers(1, 12),
    st.sampled_from(["", "Be brief."]),
)
def test_shards_give_the_bytes_of_one_process(
    tmp_path: Path, texts: list[str], make: Callable[[str, int], Row], size: int, system: str
) -> None:
    rows = [make(text, i) for i, text in enumerate([*texts, "a question of its own"])]
    sources = [raw(tmp_path, rows[: len(rows) // 2], 2), raw(tmp_path, rows[len(rows) // 2 :])]
    old = stage.run(PrepareConfig(), [raw(tmp_path, rows[::-2])], tmp_path / "old")
    for previous in (None, old):
        one = stage.run(PrepareConfig(), sources, tmp_path / "one", previous, system)
        shards = sharded.run(
            PrepareConfig(), sources, tmp_path / "many", previous, system, runner=one_process, shard_rows=size
        )
        assert contents(shards) == contents(one)
        both = shards.facts.keys() & one.facts.keys() - {"set_id", "path", "notes", "scores", "findings"}
        assert {"rows_in", "kept", "rejected", "unwrapped", "leaked", "groups", "config", "parents"} <= both
        assert {key: shards.facts[key] for key in both} == {key: one.facts[key] for key in both}
        assert not list((tmp_path / "many").glob(".sharded-*"))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_real_rows_in_two_processes_give_the_bytes_of_one(tmp_path: Path) -> None:
    objects = enumerate(read_jsonl(DATA / "lamini/lamini_docs.jsonl"), 1)
    rows = [pair(obj["question"], obj["answer"], meta=Meta("lamini_docs.jsonl", line)) for line, obj in objects]
    source = raw(tmp_path, rows)
    one = stage.run(PrepareConfig(), [source], tmp_path / "one")
    many = sharded.run(PrepareConfig(), [source], tmp_path / "many", shard_rows=300)
    assert contents(many) == contents(one)
    assert many.facts["unwrapped"] == 1400
    assert many.facts["notes"][-1].startswith("findings and scores: NOT RUN")
    assert open_artifact(many.path, "set").facts["leaked"] == 0
    assert "| in | 1400 |" in (many.path / "report.md").read_text()


def test_a_run_that_failed_goes_on_with_the_shards_that_it_lacks(tmp_path: Path) -> None:
    source = raw(tmp_path, questions(40))
    ran: list[tuple[str, int]] = []

    def failing(job: Job) -> None:
        for rank in range(job.world):
            if job.step == "deal" and rank == 2 and "stop" not in ran:
                ran.append(("stop", 0))
                raise KeyboardInterrupt
            if run_rank(job, rank):
                ran.append((job.step, rank))

    run = lambda: sharded.run(PrepareConfig(), [source], tmp_path / "sets", runner=failing, shard_rows=10)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        run()
    before = len(ran)
    ran.append("stop")  # type: ignore[arg-type]
    made = run()
    assert [step for step in ran[before:] if step != "stop"] == [("deal", 2), ("deal", 3)]
    assert contents(made) == contents(stage.run(PrepareConfig(), [source], tmp_path / "one"))


def test_a_killed_run_is_gone_on_with_and_loses_nothing(tmp_path: Path) -> None:
    source = raw(tmp_path, questions(300))
    code = (
        "from pathlib import Path; from tunesmith.core.artifact import open_artifact; import time\n"
        "from tunesmith.prepare import sharded, shards; from tunesmith.prepare.config import PrepareConfig\n"
        "def slow(job):\n"
        "    for rank in range(job.world):\n"
        "        shards.run_rank(job, rank); time.sleep(0.05)\n"
        f"raw = open_artifact(Path({str(source.path)!r}))\n"
        f"sharded.run(PrepareConfig(), [raw], Path({str(tmp_path / 'sets')!r}), runner=slow, shard_rows=10)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("sets/.sharded-*/clean/completions/00003")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (work,) = tmp_path.glob("sets/.sharded-*")
    kept = {path.name: path.stat().st_mtime_ns for path in (work / "clean").iterdir() if path.name.isdecimal()}
    assert 4 <= len(kept) < 30
    seen: dict[str, int] = {}

    def watched(job: Job) -> None:
        one_process(job)
        if job.step == "clean":
            seen.update({path.name: path.stat().st_mtime_ns for path in job.folder.iterdir() if path.is_dir()})

    made = sharded.run(PrepareConfig(), [source], tmp_path / "sets", runner=watched, shard_rows=10)
    finished = list(kept)[:-1]
    assert sum(seen[name] == kept[name] for name in finished) >= len(finished) - 1
    assert contents(made) == contents(stage.run(PrepareConfig(), [source], tmp_path / "one"))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"reject": ["echo"]}, "reject needs all rows in memory"),
        ({"benchmarks": ["arc.jsonl"]}, "benchmarks needs all rows in memory"),
        ({"difficulty": "base"}, "difficulty needs all rows in memory"),
        ({"judge": 10}, "judge needs all rows in memory"),
    ],
)
def test_settings_that_shards_cannot_keep_are_refused(tmp_path: Path, config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        sharded.run(PrepareConfig(**config), [], tmp_path)


@pytest.mark.parametrize("size", [1, 10])
def test_mixed_kinds_are_refused_with_the_place(tmp_path: Path, size: int) -> None:
    rows = [*questions(3), Row(text="raw", meta=Meta("g", 7))]
    with pytest.raises(DataError, match="g:7: text among messages"):
        sharded.run(PrepareConfig(), [raw(tmp_path, rows)], tmp_path / "sets", runner=one_process, shard_rows=size)


def test_a_set_without_rows_is_refused(tmp_path: Path) -> None:
    source = raw(tmp_path, [pair("", "A")])
    with pytest.raises(DataError, match="no row is left"):
        sharded.run(PrepareConfig(), [source], tmp_path / "sets", runner=one_process)
    with pytest.raises(DataError, match="no row is left"):
        sharded.run(PrepareConfig(), [raw(tmp_path, [], 3)], tmp_path / "sets", runner=one_process)


def test_a_runner_that_loses_a_shard_is_found_out(tmp_path: Path) -> None:
    def lazy(job: Job) -> None:
        run_rank(job, 0)

    with pytest.raises(DataError, match="3 of 4 shards of templates-0 are not finished: 00001"):
        sharded.run(PrepareConfig(), [raw(tmp_path, questions(40))], tmp_path / "sets", runner=lazy, shard_rows=10)


def test_generated_rows_stay_with_their_parent_in_shards_too(tmp_path: Path) -> None:
    rows = questions(40)
    rows = [replace(row, meta=replace(row.meta, group=f"p{i % 10}")) for i, row in enumerate(rows)]
    source = raw(tmp_path, rows)
    made = sharded.run(PrepareConfig(), [source], tmp_path / "sets", runner=one_process, shard_rows=7)
    where = {row.question: side for side in SPLITS for row in read_rows(made.path / f"{side}.jsonl")}
    for group in range(10):
        assert len({where[row.question] for row in rows[group::10]}) == 1


def test_families_are_joined_and_rewritten_and_dropped_rows_give_way_in_shards_too(tmp_path: Path) -> None:
    rows = questions(30)
    child = pair("quite another question", "A", meta=Meta("generated/paraphrase", 1, "generated", rows[3].id))
    better = pair("answered better now", "B", meta=Meta("generated/rewrite", 2, "edited", rows[5].id))
    provenance = [
        {"id": child.id, "line": 1, "parents": [rows[3].id]},
        {"id": better.id, "line": 2, "parents": [rows[5].id], "replaces": rows[5].id},
        {"drops": rows[7].id, "why": "it loops"},
    ]
    sources = [raw(tmp_path, rows, 2), raw(tmp_path, [child, better], provenance=provenance)]
    one = stage.run(PrepareConfig(), sources, tmp_path / "one")
    many = sharded.run(PrepareConfig(), sources, tmp_path / "many", runner=one_process, shard_rows=8)
    assert contents(many) == contents(one)
    assert many.facts["rejected"] == {"malformed": 2, "rewritten": 1, "dropped": 1} == one.facts["rejected"]
    where = {row.question: side for side in SPLITS for row in read_rows(many.path / f"{side}.jsonl")}
    assert where[child.question] == where[rows[3].question]
