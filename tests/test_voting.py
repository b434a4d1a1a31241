"""`vote` and `rank` in a project: through a pipe, through a terminal with Ctrl-C, and what the votes become."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.artifact import seal, writing
from tunesmith.core.jsonl import read_jsonl, read_rows, write_jsonl, write_rows
from tunesmith.core.records import Message, Row, pair

Tunesmith = Callable[..., Any]
COUNT = 30


def evaluation(project: Path, name: str, tuned: str, run: str) -> None:
    folder = project / "evals" / name
    rows = [
        {
            "id": pair(f"Question {n}?", f"Answer {n}.").id,
            "prompt": f"Question {n}?",
            "group": f"g{n}",
            "base": f"Base: {n}",
            "tuned": f"{tuned}: {n}",
            "arms": {},
        }
        for n in range(COUNT)
    ]
    with writing(folder) as work:
        write_jsonl(work / "predictions.jsonl", rows)
        facts = {"split": "test", "parents": {"set": {"name": "s1"}, "run": {"name": run}}}
        seal(work, folder, "eval", facts)


@pytest.fixture
def project(tunesmith: Tunesmith, tmp_path: Path) -> Path:
    """A project with an evaluation whose answers say who wrote them, which the page must not need."""
    tunesmith("new", "faq", cwd=tmp_path)
    folder = tmp_path / "faq"
    with writing(folder / "data/sets/s1") as work:
        write_rows(work / "test.jsonl", (pair(f"Question {n}?", f"Answer {n}.") for n in range(COUNT)))
        seal(work, folder / "data/sets/s1", "set", {})
    evaluation(folder, "eval-1", "Tuned", "run-1")
    return folder


def test_votes_through_a_pipe_are_kept_and_counted(tunesmith: Tunesmith, project: Path) -> None:
    said = tunesmith("vote", "--json", cwd=project, typed="abtnq")
    assert said.code == 0
    assert said.json == {
        "eval": "eval-1", "arms": ["base", "tuned"], "rater": "me", "pairs": COUNT, "equal": 0,
        "voted": 4, "skipped": 0, "left": COUNT - 4,
    }  # fmt: skip
    assert "next: tunesmith rank" in said.err
    more = tunesmith("vote", "--json", cwd=project, typed="t")  # the end of the input ends the session
    assert more.json["voted"] == 5
    assert tunesmith("vote", "--rater", "bob", "--json", cwd=project, typed="s").json["skipped"] == 1


def test_the_page_shows_both_answers_and_no_names(tunesmith: Tunesmith, project: Path) -> None:
    said = tunesmith("vote", cwd=project, typed="q")
    for word in ("Question", "Base: ", "Tuned: ", "[a] or", "0 voted, 30 to go"):
        assert word in said.err
    assert "run-1" not in said.err
    assert "tuned" not in said.err.split("arms")[0]


def test_nothing_to_vote_on_and_wrong_arms_are_usage_errors(
    tunesmith: Tunesmith, project: Path, tmp_path: Path
) -> None:
    tunesmith("new", "empty", cwd=tmp_path)
    assert tunesmith("vote", cwd=tmp_path / "empty").code == 2
    for arms in ("base", "base,base", "base,nobody", "a,b,c"):
        assert tunesmith("vote", "--arms", arms, cwd=project).code == 2
    assert tunesmith("rank", cwd=project).code == 2
    assert tunesmith("vote", "--save", "a", "--export", "b", cwd=project).code == 2
    assert tunesmith("vote", "--rater", " ", cwd=project).code == 3


def prefer(tunesmith: Tunesmith, project: Path, who: str, rater: str, name: str) -> None:
    """Vote on everything by what the page shows, as a person would: a key for each page."""
    from tunesmith.core.project import Project
    from tunesmith.evaluate.votes import Booth, VoteStore, ballots

    found = Project(project).open("eval", name)
    pairs, _ = ballots(found, ("base", "tuned"), {})
    store = VoteStore(project / "tunesmith.db")
    booth = Booth(store, found, pairs, rater)
    while (shown := booth.next()) is not None:
        booth.choose(shown, "left" if shown.texts[0].startswith(who) else "right")
    store.close()


def test_a_project_ranks_its_votes_and_names_models_by_their_runs_where_there_are_several(
    tunesmith: Tunesmith, project: Path
) -> None:
    prefer(tunesmith, project, "Tuned", "ann", "eval-1")
    one = tunesmith("rank", "--json", cwd=project)
    assert [model["name"] for model in one.json["models"]] == ["tuned", "base"]
    assert one.json["votes"] == COUNT  # hidden repeats do not count
    (ann,) = one.json["self"]
    assert ann["repeats"] == ann["same"] > 0
    assert f"the same again {ann['repeats']} of {ann['repeats']} times" in one.err
    evaluation(project, "eval-2", "Later", "run-2")
    prefer(tunesmith, project, "Base", "ann", "eval-2")
    several = tunesmith("rank", "--json", cwd=project).json
    assert [model["name"] for model in several["models"]] == ["run-1", "base", "run-2"]
    assert [m["name"] for m in tunesmith("rank", "--eval", "eval-2", "--json", cwd=project).json["models"]] == [
        "base",
        "tuned",
    ]


def test_saved_votes_are_a_file_that_rank_reads_to_the_same_ratings(tunesmith: Tunesmith, project: Path) -> None:
    tunesmith("vote", cwd=project, typed="aabbtn")
    assert tunesmith("vote", "--save", "votes.jsonl", "--json", cwd=project).json["votes"] >= 5
    rows = list(read_jsonl(project / "votes.jsonl"))
    assert all(row.keys() == {"item", "a", "b", "winner", "rater"} for row in rows)
    assert {(row["a"], row["b"]) for row in rows} == {("base", "tuned")}
    ours, theirs = (tunesmith("rank", *file, "--json", cwd=project).json for file in ([], ["votes.jsonl"]))
    assert ours["models"] == theirs["models"]
    assert tunesmith("vote", "--save", "votes.jsonl", cwd=project).code == 2  # nothing is overwritten


def test_exported_preferences_go_the_way_of_all_rows(tunesmith: Tunesmith, project: Path, tmp_path: Path) -> None:
    prefer(tunesmith, project, "Tuned", "ann", "eval-1")
    said = tunesmith("vote", "--export", "prefs.jsonl", "--json", cwd=project)
    assert (said.json["kept"], said.json["rejected"], said.json["votes"]) == (COUNT, {}, COUNT)
    assert "next: tunesmith collect prefs.jsonl" in said.err
    row = next(read_rows(project / "prefs.jsonl"))
    assert row.chosen is not None
    assert (row.chosen.split(":")[0], row.rejected.split(":")[0]) == ("Tuned", "Base")  # type: ignore[union-attr]
    assert row.messages[-1].role == "user"
    assert tunesmith("collect", "prefs.jsonl", "--json", cwd=project).json["kept"] == COUNT
    shutil.rmtree(project / "data/sets")  # it was no real one
    prepared = tunesmith("prepare", "--json", cwd=project).json
    assert prepared["rows_in"] == COUNT == prepared["kept"] + sum(prepared["rejected"].values())
    (tmp_path / "qa.jsonl").write_text(json.dumps({"question": "Why?", "answer": "So."}) + "\n")
    tunesmith("new", "qa", "--data", "qa.jsonl", cwd=tmp_path)
    from tunesmith.core.project import Project
    from tunesmith.voting import collect_command

    assert collect_command(Project(tmp_path / "qa"), Path("p.jsonl")) == "tunesmith new qa-preferences --data p.jsonl"


def test_a_prompt_keeps_its_turns_in_the_export(tunesmith: Tunesmith, project: Path) -> None:
    turns = (Message("system", "Be brief."), Message("user", "Question 0?"), Message("assistant", "Answer 0."))
    with writing(project / "data/sets/s2") as work:
        write_rows(work / "test.jsonl", [Row(turns)])
        seal(work, project / "data/sets/s2", "set", {})
    with writing(project / "evals/eval-9") as work:
        texts = {"prompt": "Question 0?", "group": "", "base": "x", "tuned": "y", "arms": {}}
        write_jsonl(work / "predictions.jsonl", [{"id": Row(turns).id, **texts}])
        seal(work, project / "evals/eval-9", "eval", {"split": "test", "parents": {"set": {"name": "s2"}}})
    tunesmith("vote", "--eval", "eval-9", cwd=project, typed="a")
    tunesmith("vote", "--export", "prefs.jsonl", cwd=project)
    assert next(read_rows(project / "prefs.jsonl")).messages == turns[:2]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def _own_terminal() -> None:
    """So that ^C is a signal, which is heard in a background job too."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_single_keys_at_a_terminal_and_ctrl_c_keep_every_vote(project: Path, tunesmith: Tunesmith) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tunesmith", "vote", "--json"],
        cwd=project,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    seen = b""

    def wait_for(word: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + 60
        while word not in seen and time.monotonic() < end:
            if select.select([ours], [], [], 1)[0]:
                seen += os.read(ours, 65536)
        assert word in seen
        seen = seen[seen.index(word) + len(word) :]

    try:
        for voted, key in enumerate((b"a", b"\x1b[C", b"t")):  # no Enter
            wait_for(f"{voted} voted".encode())
            wait_for(b"quit")
            os.write(ours, key)
        wait_for(b"3 voted")
        wait_for(b"quit")
        os.write(ours, b"\x03")
        wait_for(b"3 votes are kept, 27 pairs are left")
        assert process.wait(30) == 130
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        out = process.stdout.read()
        process.stdout.close()
        os.close(ours)
    assert json.loads(out)["exit_code"] == 130
    assert tunesmith("vote", "--json", cwd=project, typed="q").json["voted"] == 3
