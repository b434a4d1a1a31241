"""The verbs of the data as people type them: generate against an endpoint that misbehaves, review, prepare, diff."""

from __future__ import annotations

import json
import random
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.jsonl import read_json, read_jsonl, read_rows
from tunesmith.prepare.shards import load_job, run_rank

Tunesmith = Callable[..., Any]  # the command, as the fixture runs it
pytestmark = pytest.mark.usefixtures("cache")
SYLLABLES = re.findall("..", "bacedifoguhajekilomunapeqirosutavewixozu")


def word(rng: random.Random) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(3))


def write_faq(path: Path, count: int = 30, seed: int = 1) -> Path:
    rng = random.Random(seed)
    rows = [
        {"question": f"Why is the {word(rng)} {word(rng)} of {word(rng)}?", "answer": f"It is {word(rng)}."}
        for _ in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def faq(tunesmith: Tunesmith, tmp_path: Path, llama_dir: Path) -> Path:
    write_faq(tmp_path / "faq.jsonl")
    assert tunesmith("new", "faq", "--data", "faq.jsonl", "--base", llama_dir, cwd=tmp_path).code == 0
    return tmp_path / "faq"


def inventive(payload: dict[str, Any]) -> str:
    """Two new rows, a function of what was asked."""
    rng = random.Random(json.dumps([payload["messages"], payload.get("seed")]))
    made = [{"question": f"When does {word(rng)} {word(rng)} {word(rng)}?", "answer": f"At {word(rng)}."} for _ in "ab"]
    return json.dumps({"rows": made})


def misbehaving(number: int, payload: dict[str, Any]) -> str | None:
    return {0: "500", 1: "cut", 3: "length", 4: "page"}.get(number)


@pytest.fixture
def endpoint(serving: Callable[..., Any]) -> Iterator[Any]:
    with serving(inventive, misbehaving) as found:
        yield found


def to(endpoint: Any, *more: object) -> list[object]:
    """The flags that name the endpoint."""
    return ["--base-url", endpoint.url, "--model", "small", *more]


def in_file(project: Path, **values: Any) -> None:
    """Values under [generate], where no flag is."""
    file = project / "tunesmith.toml"
    lines = file.read_text("utf-8").splitlines()
    start = lines.index("[generate]")
    for key, value in values.items():
        place = next(n for n in range(start, len(lines)) if lines[n].removeprefix("# ").startswith(f"{key} ="))
        lines[place] = f"{key} = {value}"
    file.write_text("\n".join(lines) + "\n", "utf-8")


# generate


def test_generate_delivers_the_target_and_the_same_command_again_asks_for_nothing(
    tunesmith: Tunesmith, faq: Path, endpoint: Any
) -> None:
    words = ["generate", *to(endpoint, "--target", 7, "--json")]
    said = tunesmith(*words, cwd=faq)
    assert said.code == 0, said.err
    made = said.json
    names = "id path recipe model requested rows_in kept rejected requests_used spent"
    assert list(made) == names.split()
    assert (made["kept"], made["requested"], made["model"]) == (7, 7, "small")
    assert made["rows_in"] == 7 + sum(made["rejected"].values())
    assert made["spent"]["requests"] == endpoint.requests
    assert "next: tunesmith prepare" in said.err
    before = endpoint.requests
    again = tunesmith(*words, cwd=faq)
    assert (again.json, endpoint.requests) == (made, before)
    assert "the same was made before" in again.err
    assert tunesmith("generate", *to(endpoint, "--target", 8, "--json"), cwd=faq).json["id"] != made["id"]
    prepared = tunesmith("prepare", "--json", cwd=faq).json
    assert prepared["kept"] + sum(prepared["rejected"].values()) == prepared["rows_in"] >= 30 + 7 + 8


def test_a_dry_run_sends_nothing_and_names_the_command_that_does(
    tunesmith: Tunesmith, faq: Path, endpoint: Any
) -> None:
    said = tunesmith("generate", *to(endpoint, "--target", 10, "--dry-run", "--json"), cwd=faq)
    assert (said.code, endpoint.requests) == (0, 0)
    assert {"requests", "prompt_tokens", "completion_tokens", "cost", "seconds", "basis"} <= said.json.keys()
    assert said.json["requests"][0] <= said.json["requests"][1]
    assert "next: tunesmith generate" in said.err
    local = tunesmith("generate", "--local", "--dry-run", cwd=faq)
    assert local.code == 2
    assert "a local model costs nothing" in local.err


def test_a_cap_on_the_command_line_stops_it_with_6_and_raising_it_goes_on(
    tunesmith: Tunesmith, faq: Path, endpoint: Any
) -> None:
    capped = tunesmith("generate", *to(endpoint, "--target", 7, "--max-requests", 2, "--json"), cwd=faq)
    assert (capped.code, endpoint.requests) == (6, 2)
    assert "max_requests = 2 is reached" in capped.err
    assert capped.json["exit_code"] == 6
    raised = tunesmith("generate", *to(endpoint, "--target", 7, "--max-requests", 99, "--json"), cwd=faq)
    assert raised.json["kept"] == 7
    without_price = tunesmith("generate", *to(endpoint, "--max-cost", 1), cwd=faq)
    assert without_price.code == 2
    assert "max_cost is set, and small has no price" in without_price.err


def test_a_local_model_that_is_no_use_is_given_up_with_its_own_words(tunesmith: Tunesmith, faq: Path) -> None:
    said = tunesmith("generate", "--local", "--recipe", "rewrite", "--target", 1, cwd=faq)
    assert said.code == 3
    assert "0 of 1 rows are accepted" in said.err  # no answer of these is weak
    said = tunesmith("generate", "--local", "--target", 5, "--json", cwd=faq)
    assert said.code == 6
    assert "rows were good enough, in 20 requests" in said.err


def test_what_generate_cannot_take_is_refused_before_anything_is_sent(
    tunesmith: Tunesmith, faq: Path, endpoint: Any
) -> None:
    made = tunesmith("prepare", "--json", cwd=faq).json
    said = tunesmith("generate", made["path"], *to(endpoint), cwd=faq)
    assert (said.code, endpoint.requests) == (2, 0)
    assert "rows are made from what was collected" in said.err
    assert "next: leave it out" in said.err
    assert tunesmith("generate", cwd=faq).code == 2
    assert tunesmith("generate", "nowhere.md", *to(endpoint), cwd=faq).code == 3


# review


def test_a_draft_is_reviewed_from_the_keyboard_and_only_what_is_accepted_becomes_data(
    tunesmith: Tunesmith, faq: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EDITOR", "VISUAL"):
        monkeypatch.delenv(name, raising=False)
    draft = tunesmith("generate", *to(endpoint, "--target", 4, "--review", "--json"), cwd=faq)
    assert "next: tunesmith review" in draft.err
    rows = list(read_rows(Path(draft.json["path"]) / "examples.jsonl"))
    first = tunesmith("review", "--json", cwd=faq, typed="a\ne\n\nA better answer.\n")  # then the keyboard is silent
    assert (first.code, first.json) == (0, {})
    assert rows[0].question in first.err
    assert "next: tunesmith review" in first.err
    done = tunesmith("review", "--json", cwd=faq, typed="r\nbeside the point\na\n")
    assert done.json["review"] == {"accept": 2, "edit": 1, "reject": 1, "pending": 0}
    kept = list(read_rows(Path(done.json["path"]) / "examples.jsonl"))
    assert [row.answer for row in kept] == [rows[0].answer, "A better answer.", rows[3].answer]
    assert [row.meta.origin for row in kept] == ["generated", "edited", "generated"]
    rejects = [one for one in read_jsonl(Path(done.json["path"]) / "rejects.jsonl") if one["reason"] == "review"]
    assert [one["detail"] for one in rejects] == ["beside the point"]
    assert tunesmith("prepare", "--json", cwd=faq).json["rows_in"] == 30 + done.json["kept"] + sum(
        done.json["rejected"].values()
    )


def test_a_draft_can_be_closed_with_rows_waiting_and_there_may_be_none(
    tunesmith: Tunesmith, faq: Path, endpoint: Any
) -> None:
    nothing = tunesmith("review", cwd=faq)
    assert nothing.code == 2
    assert "next: tunesmith generate --review" in nothing.err
    assert tunesmith("generate", *to(endpoint, "--target", 2, "--review"), cwd=faq).code == 0
    tunesmith("review", cwd=faq, typed="a\nq\n")
    done = tunesmith("review", "--partial", "--json", cwd=faq).json
    assert (done["kept"], done["rejected"]["not_reviewed"]) == (1, 1)


# prepare


def test_prepare_over_shards_makes_the_same_rows_in_the_same_splits(tunesmith: Tunesmith, faq: Path) -> None:
    plain = tunesmith("prepare", "--json", cwd=faq).json
    sharded = tunesmith("prepare", "--shards", "--shard-rows", 7, "--json", cwd=faq)
    assert sharded.code == 0, sharded.err
    made = sharded.json
    assert made.keys() == plain.keys()
    for name in ("train.jsonl", "valid.jsonl", "test.jsonl", "rejects.jsonl"):
        assert (Path(made["path"]) / name).read_bytes() == (Path(plain["path"]) / name).read_bytes()
    assert made["scores"] is None
    assert "scores           NOT RUN" in sharded.err
    assert list(plain["scores"]) == ["quality", "diversity", "realness", "amount"]


def test_slurm_without_slurm_leaves_a_script_that_makes_the_shards(
    tunesmith: Tunesmith, faq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    words = ("prepare", "--shards", "--runner", "slurm", "--shard-rows", 10)
    steps = []
    while (said := tunesmith(*words, cwd=faq)).code:  # a step after the other, as a person would on a login node
        assert (said.code, "next: on a login node: sbatch --wait" in said.err) == (2, True)
        script = Path(shlex.split(said.err)[shlex.split(said.err).index("--wait") + 1].rstrip(";"))
        assert "#SBATCH --array=0-2%" in script.read_text()
        steps.append(script.parent.name)
        for rank in range(3):
            run_rank(load_job(script.parent), rank)
    assert steps == ["templates-0", "clean", "deal"]
    assert "kept             30" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--runner local", "--runner and --shard-rows are for --shards"),
        ("--shard-rows 5", "--runner and --shard-rows are for --shards"),
        ("--shards --judge 5", "judge needs all rows in memory"),
        ("--shards --runner ray", "pip install 'tunesmith[ray]'"),
        ("--reject ecko", "did you mean 'echo'?"),
        ("--judge 5", "no endpoint is set"),
    ],
)
def test_flags_that_do_not_go_together_are_usage(
    tunesmith: Tunesmith, faq: Path, words: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)
    said = tunesmith("prepare", *words.split(), cwd=faq)
    assert said.code == 2
    assert told in said.err


def test_reject_and_benchmarks_win_over_the_file_and_benchmarks_lie_where_one_stands(
    tunesmith: Tunesmith, faq: Path
) -> None:
    rows = [{"question": "Is anything else the matter with it?", "answer": "null"}]
    rows += [{"question": "Which seeds of the melon are good to eat?", "answer": "All of them are."}]
    (faq.parent / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (faq.parent / "melon.csv").write_text("Question,Best Answer\nWhich seeds of the melon are good to eat?,All\n")
    assert tunesmith("collect", "odd.jsonl", "--project", "faq", cwd=faq.parent).code == 0
    file = faq / "tunesmith.toml"
    file.write_text(file.read_text().replace("reject = []", 'reject = ["echo"]'))
    words = ("prepare", "--reject", "null", "--benchmarks", "melon.csv", "--project", "faq", "--json")
    made = tunesmith(*words, cwd=faq.parent).json
    assert made["rejected"] == {"null": 1}
    assert made["findings"]["benchmark melon.csv"] == 1
    assert read_json(Path(made["path"]) / "manifest.json")["facts"]["config"]["reject"] == ["null"]
    assert tunesmith("prepare", "--json", cwd=faq).json["rejected"] == {}


def test_difficulty_asks_the_base_a_directory_or_a_run(tunesmith: Tunesmith, faq: Path, llama_dir: Path) -> None:
    by_base = tunesmith("prepare", "--difficulty", "base", "--json", cwd=faq)
    assert by_base.code == 0, by_base.err
    found = by_base.json["difficulty"]
    assert (found["model"], found["answers"], found["left_out"]) == (str(llama_dir), 30, 0)
    assert 1 < found["perplexity"]["5 %"] <= found["perplexity"]["median"] <= found["perplexity"]["95 %"]
    assert f"difficulty by {llama_dir}: median perplexity" in by_base.err
    amount = read_json(Path(by_base.json["path"]) / "receipt.json")["quality"]["axes"]["amount"]["measured"]
    assert amount["answer_tokens"] > 30
    assert amount["steps_an_epoch"] == -(-by_base.json["train"] // amount["batch_size"])
    assert tunesmith("train", "--max-steps", 12, "--learning-rate", 0.02, "--name", "first", cwd=faq).code == 0
    by_run = tunesmith("prepare", "--difficulty", "first", "--json", cwd=faq).json["difficulty"]
    assert by_run["model"] == "first"
    assert by_run["perplexity"]["median"] < found["perplexity"]["median"] / 2  # it has seen most of the rows
    assert tunesmith("prepare", "--difficulty", "nobody/nothing", cwd=faq).code == 4


def test_the_judge_is_the_endpoint_of_the_file_and_is_paid_once(
    tunesmith: Tunesmith, faq: Path, serving: Callable[..., Any]
) -> None:
    def opinion(payload: dict[str, Any]) -> str:
        low = " ba" in payload["messages"][0]["content"]
        return json.dumps({"reason": "made up", "score": 1 if low else 4})

    with serving(opinion, lambda number, payload: "500" if number == 1 else None) as endpoint:
        in_file(faq, base_url=f'"{endpoint.url}"', model='"small"', max_requests=20)
        said = tunesmith("prepare", "--judge", 12, "--json", cwd=faq)
        assert said.code == 0, said.err
        judged = said.json["judge"]
        assert (judged["rows"], judged["unreadable"], sum(judged["scores"].values())) == (12, 0, 12)
        assert judged["spent"]["requests"] == endpoint.requests == 13
        assert said.json["findings"].get("judged_low", 0) == judged["scores"]["1"]
        assert "judged by small: mean" in said.err
        assert tunesmith("prepare", "--judge", 12, "--json", cwd=faq).json == said.json
        assert endpoint.requests == 13
        capped = tunesmith("prepare", "--judge", 30, cwd=faq)
        assert (capped.code, endpoint.requests) == (6, 20)
        assert "max_requests = 20 is reached" in capped.err


# collect, show diff


def test_the_question_of_collect_names_the_file_as_it_was_typed(tunesmith: Tunesmith, faq: Path) -> None:
    folder = faq.parent / "my data"
    folder.mkdir()
    rows = [{"kunde": "Where is the lantern?", "bot": "In the harbour, I believe, by the wall."}] * 3
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = tunesmith("collect", "../my data/chat.jsonl", cwd=faq)
    assert said.code == 3
    command = said.err.split("next: ")[1].split(";")[0]
    assert command.startswith("tunesmith collect '../my data/chat.jsonl' --map prompt=kunde --map completion=bot")
    assert tunesmith(*shlex.split(command)[1:], cwd=faq).code == 0
    new = tunesmith("new", "other", "--data", "my data/chat.jsonl", cwd=faq.parent)
    command = new.err.split("next: ")[1].split(";")[0]
    assert command.startswith("tunesmith new other --data 'my data/chat.jsonl' --map prompt=kunde")
    assert tunesmith(*shlex.split(command)[1:], cwd=faq.parent).code == 0


def test_show_diff_says_which_rows_came_and_went(tunesmith: Tunesmith, faq: Path) -> None:
    alone = tunesmith("prepare", cwd=faq)
    assert tunesmith("show", "diff", cwd=faq).code == 2
    write_faq(faq.parent / "more.jsonl", 3, seed=2)
    lines = (faq.parent / "faq.jsonl").read_text().splitlines(keepends=True)
    (faq.parent / "faq.jsonl").write_text("".join(lines[1:]))
    assert tunesmith("collect", "../more.jsonl", cwd=faq).code == 0
    assert tunesmith("collect", "../faq.jsonl", cwd=faq).code == 0
    assert (alone.code, tunesmith("prepare", cwd=faq).code) == (0, 0)
    said = tunesmith("show", "diff", "--json", cwd=faq)
    assert said.code == 0
    assert (len(said.json["came"]), len(said.json["went"])) == (3, 1)
