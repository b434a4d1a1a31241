"""What users get wrong, and what the world does to them: a message with the place and what to type next, the documented
exit code, never a traceback."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.jsonl import read_json, read_jsonl

CONTEXT = 128  # tokens of the tiny models

Tunesmith = Callable[..., Any]  # the command, as the fixture runs it
pytestmark = pytest.mark.usefixtures("cache")


def check(said: Any, code: int, *told: str) -> None:
    """The exit code, each part of the message, and the same in the object for programs."""
    assert said.code == code, said.err
    for part in told:
        assert part in said.err, said.err
    if said.out:
        assert said.json["exit_code"] == code


ROWS = [
    {"question": "Where is the lantern?", "answer": "In the harbour."},
    {"question": "Who plays violin?", "answer": "The gardener does."},
    {"question": "When does market open?", "answer": "At seven."},
]
LINES = [json.dumps(row) for row in ROWS]
JSONL = "\n".join(LINES) + "\n"
CSV = "question,answer\n" + "".join(f'"{row["question"]}","{row["answer"]}"\n' for row in ROWS)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        (
            "page.jsonl",
            b"\n<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n",
            ["page.jsonl: this is a web page", "expected: JSON, JSON lines, CSV, TSV", "next: download the raw file"],
        ),
        ("empty.jsonl", b"", ["empty.jsonl: the file is empty"]),
        ("blank.jsonl", b"\n \r\n", ["blank.jsonl: the file is empty"]),
        ("head.csv", b"question,answer\n", ["head.csv: a table with a header and no rows", "one row below the header"]),
        ("notes.txt", b"Dear diary,\nit rained.\n", ["notes.txt: this is plain text", '"prompt"']),
        ("book.parquet", b"PAR1\x15\x04\x15", ["book.parquet: the Parquet file cannot be read"]),
        ("twice.csv", b"question,question\na,b\nc,d\n", ["twice.csv:1: two columns are called 'question'"]),
        ("all.jsonl", b'{"question": "a", "answer": "b\n{"question": "c", "an\n', ["all.jsonl", "malformed"]),
    ],
)
def test_a_file_that_cannot_be_used_is_bad_data_and_leaves_no_project(
    tunesmith: Tunesmith, tmp_path: Path, name: str, data: bytes, told: list[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    said = tunesmith("new", "faq", "--data", name, "--json", cwd=tmp_path)
    check(said, 3, *told)
    assert not (tmp_path / "faq").exists()


def test_columns_that_do_not_say_what_they_are_get_ranked_guesses_whose_flags_work(
    tunesmith: Tunesmith, tmp_path: Path
) -> None:
    more = " Is that of any help to you today"
    rows = [{"kunde": row["question"], "bot": row["answer"] + more, "nr": 7} for row in ROWS]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = tunesmith("new", "faq", "--data", "chat.jsonl", "--json", cwd=tmp_path)
    check(said, 3, "which columns hold prompt and answer? There are: bot, kunde, nr", "likeliest first")
    flags = re.findall(r"--map prompt=\S+ --map completion=[^\s;]+", said.err)
    assert flags[0] == "--map prompt=kunde --map completion=bot"
    again = tunesmith("new", "faq", "--data", "chat.jsonl", *flags[0].split(), cwd=tmp_path)
    assert again.code == 0, again.err
    (examples,) = (tmp_path / "faq").glob("data/raw/*/examples.jsonl")
    assert [m["content"] for m in next(read_jsonl(examples))["messages"]] == [rows[0]["kunde"], rows[0]["bot"]]


def test_a_row_cut_in_the_middle_is_rejected_with_its_column_and_the_rest_is_kept(
    tunesmith: Tunesmith, tmp_path: Path
) -> None:
    (tmp_path / "cut.jsonl").write_text(f"{LINES[0]}\n{LINES[1][:30]}\n{LINES[2]}\n")
    said = tunesmith("new", "faq", "--data", "cut.jsonl", cwd=tmp_path)
    assert said.code == 0
    assert "3 rows, 2 kept, 1 malformed" in said.err
    facts = tunesmith("prepare", "--json", cwd=tmp_path / "faq").json
    assert (facts["rows_in"], facts["kept"], facts["rejected"]) == (3, 2, {"malformed": 1})
    (reject,) = read_jsonl(Path(facts["path"]) / "rejects.jsonl")
    column = LINES[1].index('"Who') + 1  # where the string starts that never ends
    assert (reject["source"], reject["line"], reject["reason"]) == ("cut.jsonl", 2, "malformed")
    assert reject["detail"].startswith(f"cut.jsonl:2:{column}: ")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + JSONL.encode()),
        ("crlf.jsonl", JSONL.replace("\n", "\r\n").encode()),
        ("utf16.jsonl", JSONL.encode("utf-16")),
        ("bare16.jsonl", JSONL.encode("utf-16-be")),
        ("bom.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("crlf.csv", CSV.replace("\n", "\r\n").encode()),
        ("utf16.csv", CSV.encode("utf-16")),
        ("lines.tsv", CSV.replace('","', '"\t"').replace("n,a", "n\ta").encode()),
    ],
)
def test_marks_line_ends_and_wide_characters_are_read_as_what_they_are(
    tunesmith: Tunesmith, tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    said = tunesmith("new", "faq", "--data", name, "--json", cwd=tmp_path)
    assert said.code == 0, said.err
    (examples,) = (tmp_path / "faq").glob("data/raw/*/examples.jsonl")
    found = [[message["content"] for message in row["messages"]] for row in read_jsonl(examples)]
    assert found == [[row["question"], row["answer"]] for row in ROWS]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("new faq --data fag.jsonl", ["fag.jsonl does not exist", "did you mean 'faq.jsonl'?"]),
        ("new faq --data away/x.csv", ["away/x.csv does not exist", "next: check the path"]),
        ("new faq --data zzz", ["zzz does not exist", "next: check the path"]),
        ("new faq --data .", [". is a folder", "expected: a file of examples"]),
        ("new faq --map prompt=a", ["--map without --data"]),
        ("new faq --data faq.jsonl --map prompt", ["--map prompt", "expected: ROLE=COLUMN"]),
        ("new faq --data faq.jsonl --map prompt=a --map prompt=b", ["--map prompt=... is given twice"]),
        ("new faq --data faq.jsonl --map promt=question", ["--map promt=...", "did you mean 'prompt'?"]),
        ("new faq --data faq.jsonl --map prompt=question", ["is no whole example", "prompt and completion"]),
        ("new faq --data faq.jsonl --data faq.jsonl", ["faq.jsonl is given twice"]),
        ("new faq.jsonl/inside", ["Not a directory", "faq.jsonl/inside", "next: check the path"]),
        ("prepare", ["no tunesmith.toml in", "next: tunesmith new DIR --data FILE, or --project DIR"]),
        ("prepare --project nowhere", ["nowhere is not a project: no tunesmith.toml"]),
        ("pretrain --embedded --max-steps 3", ["--max-steps with --embedded"]),
        ("pretrain --embedded --name a --project b", ["--name with --embedded"]),
    ],
)
def test_a_wrong_command_outside_a_project_is_usage(
    tunesmith: Tunesmith, tmp_path: Path, words: str, told: list[str]
) -> None:
    (tmp_path / "faq.jsonl").write_text(JSONL)
    check(tunesmith(*words.split(), "--json", cwd=tmp_path), 2, *told)
    assert not (tmp_path / "faq").exists()


def test_a_column_that_is_not_there_is_bad_data_with_the_nearest_one(tunesmith: Tunesmith, tmp_path: Path) -> None:
    (tmp_path / "faq.jsonl").write_text(JSONL)
    words = "new faq --data faq.jsonl --map prompt=qestion --map completion=answer"
    check(tunesmith(*words.split(), cwd=tmp_path), 3, "no column 'qestion'", "did you mean 'question'?")


@pytest.mark.parametrize("words", ["frob", "train --nix", "train --method qlora", "train --max-steps many", "collect"])
def test_what_the_parser_refuses_is_usage(tunesmith: Tunesmith, tmp_path: Path, words: str) -> None:
    said = tunesmith(*words.split(), cwd=tmp_path)
    assert (said.code, said.out) == (2, "")
    assert "Error" in said.err


@pytest.fixture(scope="module")
def ready(tunesmith: Tunesmith, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that is prepared: 20 rows of ordinary length."""
    here = tmp_path_factory.mktemp("ready")
    things = ("lantern", "compass", "blanket", "violin", "ladder", "kettle", "hammer", "mirror", "basket", "candle")
    rows = [
        {"question": f"{a} {b}?", "answer": f"The {a}."} for a, b in zip(things, things[1:] + things[:1], strict=True)
    ]
    rows += [{"question": f"{a}, {a}!", "answer": f"No {a}."} for a in things]
    (here / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tunesmith("new", "faq", "--data", "faq.jsonl", cwd=here).code == 0
    assert tunesmith("prepare", cwd=here / "faq").code == 0
    return here / "faq"


@pytest.fixture
def project(ready: Path, tmp_path: Path) -> Path:
    """A copy of `ready` that a test may spoil."""
    return Path(shutil.copytree(ready, tmp_path / "faq"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("evaluate", ["the project has no run yet", "next: tunesmith train"]),
        ("show run", ["the project has no run yet", "next: tunesmith train"]),
        ("show evals", ["unknown kind 'evals'", "did you mean 'eval'?"]),
        ("show --row 0", ["has no training row 0", "expected: 1 to "]),
        ("show run --row 1", ["--row of a run", "next: tunesmith show set --row 1"]),
        ("train --set nix", ["no set 'nix'", "next: known: "]),
        ("train --resume", ["there is no unfinished run", "next: leave --resume out"]),
        ("train --resume --name run-7", ["there is no unfinished run run-7", "next: leave --resume out"]),
        ("train --max-steps 3 --num-epochs 2", ["give num_epochs or max_steps, not both"]),
        ("train --learning-rate 0", ["learning_rate = 0.0: input should be greater than 0", "the highest learning"]),
        ("train --batch-size 0", ["batch_size = 0", "examples an optimizer step"]),
        ("train --max-steps -1", ["max_steps = -1"]),
        ("train --name a/b", ["'a/b' cannot be a name"]),
        ("train --name x.partial", ["'x.partial' cannot be a name"]),
        ("pretrain --max-steps 0", ["max_steps = 0"]),
        ("new .", ["is a project already", "tunesmith collect FILE"]),
    ],
)
def test_a_wrong_command_in_a_project_is_usage(tunesmith: Tunesmith, ready: Path, words: str, told: list[str]) -> None:
    if words.startswith("pretrain"):  # it needs text
        ready = ready.parent / "text"
        if not ready.is_dir():
            (ready.parent / "text.jsonl").write_text(
                '{"text": "one day"}\n{"text": "two nights"}\n{"text": "ten years"}\n'
            )
            assert tunesmith("new", "text", "--data", "text.jsonl", cwd=ready.parent).code == 0
            assert tunesmith("prepare", cwd=ready).code == 0
    said = tunesmith(*words.split(), "--json", cwd=ready)
    check(said, 2, *told)
    assert "tunesmith.toml" not in said.err, "a wrong flag is not the file's fault"


def test_an_unknown_run_is_told_with_the_nearest_one(tunesmith: Tunesmith, project: Path) -> None:
    run = project / "runs" / "first"
    run.mkdir(parents=True)
    facts = {"format": 1, "kind": "run", "created": "2026-01-01", "facts": {}, "files": {}}
    (run / "manifest.json").write_text(json.dumps(facts))
    check(tunesmith("evaluate", "--run", "frist", cwd=project), 2, "no run 'frist'", "did you mean 'first'?")
    check(tunesmith("evaluate", "--run", "first", cwd=project), 2, "has no base to compare with: it was pretrained")
    check(tunesmith("train", "--name", "first", cwd=project), 2, "the run first exists", "choose another --name")


def test_verbs_out_of_order_name_the_verb_that_is_missing(tunesmith: Tunesmith, tmp_path: Path) -> None:
    assert tunesmith("new", "faq", cwd=tmp_path).code == 0
    check(tunesmith("prepare", cwd=tmp_path / "faq"), 2, "nothing was collected yet", "next: tunesmith collect FILE")
    check(tunesmith("train", cwd=tmp_path / "faq"), 2, "has no set yet", "next: tunesmith prepare")


def test_an_artifact_that_was_changed_by_hand_is_bad_data(tunesmith: Tunesmith, project: Path) -> None:
    (file,) = project.glob("data/sets/*/train.jsonl")
    file.write_text(file.read_text() + "\n")
    check(tunesmith("train", "--json", cwd=project), 3, "train.jsonl has changed since it was written")
    said = tunesmith("show", cwd=project)  # the list is still there to find a way out
    assert (said.code, file.parent.name in said.err) == (0, True)


def _bert(folder: Path) -> None:
    folder.mkdir()
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("base", "make", "told"),
    [
        ("./nix", lambda folder: None, ["there is no directory ./nix", "expected: a directory with config.json"]),
        ("nix", lambda folder: None, ["no directory is called nix", "HF_HUB_OFFLINE"]),
        (
            "./lama",
            lambda folder: (folder / "llama").mkdir(),
            ["there is no directory ./lama", "did you mean 'llama'?"],
        ),
        ("./bare", lambda folder: (folder / "bare").mkdir(), ["bare is not a model: it has no config.json"]),
        ("bert", lambda folder: _bert(folder / "bert"), ["is a BertForMaskedLM, not a causal language model"]),
        ("readme", lambda folder: (folder / "readme").write_text("hello"), ["readme is a file"]),
    ],
)
def test_a_base_that_is_none_is_a_bad_model(
    tunesmith: Tunesmith, project: Path, base: str, make: Callable[[Path], object], told: list[str]
) -> None:
    make(project)
    check(tunesmith("train", "--base", base, "--json", cwd=project), 4, *told)


def test_a_base_without_a_pad_token_is_trained_all_the_same(
    tunesmith: Tunesmith, project: Path, gpt2_dir: Path
) -> None:
    assert "pad_token" not in read_json(gpt2_dir / "tokenizer_config.json")
    said = tunesmith("train", "--base", gpt2_dir, "--max-steps", 1, "--json", cwd=project)
    assert said.code == 0, said.err
    assert read_json(Path(said.json["path"]) / "model" / "tokenizer_config.json")["pad_token"] == "<|endoftext|>"


def _collect(tunesmith: Tunesmith, project: Path, long: int, short: int) -> None:
    """A project of its own rows: `long` ones that no tiny model can hold, and `short` ones that fit."""
    words = ("lantern", "compass", "blanket", "violin", "ladder", "kettle", "hammer", "mirror", "basket", "candle")
    rows = [{"question": f"{words[i]}?", "answer": f"{words[i]} stays. " * CONTEXT} for i in range(long)]
    rows += [{"question": f"{words[-1 - i]}!", "answer": "It goes."} for i in range(short)]
    shutil.rmtree(project / "data")
    (project / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (project / "tunesmith.toml").read_text()
    text = re.sub("(valid|test)_fraction = 0.1", r"\1_fraction = 0.0", text)
    (project / "tunesmith.toml").write_text(text)
    assert tunesmith("collect", "faq.jsonl", cwd=project).code == 0
    assert tunesmith("prepare", cwd=project).code == 0


def test_rows_that_are_all_longer_than_the_context_are_bad_data(
    tunesmith: Tunesmith, project: Path, llama_dir: Path
) -> None:
    _collect(tunesmith, project, long=6, short=0)
    check(tunesmith("train", "--base", llama_dir, cwd=project), 3, "can be trained (too_long)", "next: ")


def test_rows_longer_than_the_context_are_skipped_counted_and_listed_never_cut(
    tunesmith: Tunesmith, project: Path, llama_dir: Path
) -> None:
    _collect(tunesmith, project, long=3, short=5)
    said = tunesmith("train", "--base", llama_dir, "--max-steps", 1, "--json", cwd=project)
    assert said.code == 0, said.err
    run = Path(said.json["path"])
    rows = {"in": 8, "train": 5, "valid": 0, "skipped": {"too_long": 3}, "fitted": {}}
    assert read_json(run / "receipt.json")["rows"] == rows
    skipped = list(read_jsonl(run / "skipped.jsonl"))
    assert {(one["source"], one["reason"]) for one in skipped} == {("faq.jsonl", "too_long")}
    assert sorted(one["line"] for one in skipped) == [1, 2, 3]
    assert all(f"the limit is {CONTEXT}" in one["detail"] for one in skipped)
    assert said.err.count("too_long") == 3
    assert "faq.jsonl:2" in said.err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (PermissionError(13, "Permission denied", "/locked"), 2, ["/locked: Permission denied", "permissions"]),
        (OSError(30, "Read-only file system", "/cdrom"), 2, ["/cdrom: Read-only file system"]),
        (OSError(28, "No space left on device", "/full"), 5, ["/full: the disk is full", "free some space"]),
        (OSError(122, "Disk quota exceeded"), 5, ["the disk quota is used up"]),
        (MemoryError(), 5, ["memory ran out", "micro_batch_tokens"]),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore."), 5, ["memory ran out: CUDA out of"]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 5, ["memory ran out"]),
    ],
)
def test_what_the_system_refuses_is_a_message_and_not_a_traceback(
    tunesmith: Tunesmith, ready: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, told: list[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tunesmith.loop.prepare", refuse)
    check(tunesmith("prepare", "--json", cwd=ready), code, *told)


def test_a_mistake_of_ours_still_shows_where_it_was_made(
    tunesmith: Tunesmith, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("tunesmith.loop.prepare", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        tunesmith("prepare", cwd=ready)


def test_a_file_where_a_folder_must_be_is_told_with_its_path(tunesmith: Tunesmith, project: Path) -> None:
    shutil.rmtree(project / "data" / "sets")
    (project / "data" / "sets").write_text("in the way")
    said = tunesmith("prepare", "--json", cwd=project)
    check(said, 2, str(project / "data" / "sets"))


def test_a_folder_that_cannot_be_written_is_told_with_its_path(tunesmith: Tunesmith, project: Path) -> None:
    shutil.rmtree(project / "data" / "sets")
    (project / "data").chmod(0o500)
    try:
        (project / "data" / "probe").touch()
    except PermissionError:
        check(tunesmith("prepare", "--json", cwd=project), 2, "Permission denied", str(project / "data"))
    else:
        pytest.skip("this user may write everywhere")
    finally:
        (project / "data").chmod(0o700)


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what a full disk looks like to whoever writes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_while_saving_ends_with_5_and_the_run_can_be_finished_later(
    tunesmith: Tunesmith, project: Path, llama_dir: Path
) -> None:
    with _largest_file(100_000):  # the weights of the tiny model need more
        said = tunesmith("train", "--base", llama_dir, "--max-steps", 2, "--json", cwd=project)
    check(said, 5, "a file is larger than the system allows", "MB free", "checkpoint at step 2 was not saved")
    (following,) = re.findall(r"free some space, then: tunesmith (.*)$", said.err, re.MULTILINE)
    assert not (project / "runs" / "run-1").exists()
    again = tunesmith(*following.split(), "--json", cwd=project)
    assert again.code == 0, again.err
    assert (again.json["run"], again.json["steps"], again.json["base"]) == ("run-1", 2, str(llama_dir))


def test_a_full_disk_after_the_training_keeps_its_checkpoints_and_nothing_is_trained_twice(
    tunesmith: Tunesmith, project: Path, llama_dir: Path
) -> None:
    from safetensors import SafetensorError

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunesmith.train.export.save_model", full)
        said = tunesmith("train", "--base", llama_dir, "--max-steps", 3, "--save-every", 3, "--name", "x", cwd=project)
    check(said, 5, "the disk is full", "next: free some space, then: tunesmith train --resume --name x")
    assert (project / "runs/x.partial/checkpoints/step-000003/manifest.json").is_file()
    before = (project / "runs/x.partial/metrics.jsonl").read_bytes()
    assert tunesmith("train", "--resume", cwd=project).code == 0
    assert (project / "runs/x/metrics.jsonl").read_bytes() == before
