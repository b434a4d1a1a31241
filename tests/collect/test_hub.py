"""A hub id against the hub's own cache on disk, laid out as its client does; there is no network in the tests."""

from pathlib import Path

import pytest

from tunesmith.collect.hub import ID, files, is_hub
from tunesmith.collect.stage import CollectConfig, run
from tunesmith.core.errors import RemoteError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROW = '{"question": "Q", "answer": "A"}\n'


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the data set ann/faq in a cache; files written to it are what the hub holds."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "datasets--ann--faq"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(ROW)


def test_a_data_set_is_its_files_but_those_held_out(cached: Path, tmp_path: Path) -> None:
    put(cached, "train.jsonl", "data/more-00000.jsonl", "test.jsonl", "data/validation-0.jsonl", "README.md", "a.png")
    found = [path.relative_to(cached).as_posix() for path in files(Path("hf:ann/faq"))]
    assert found == ["data/more-00000.jsonl", "train.jsonl"]
    assert run(CollectConfig(), [Path("hf:ann/faq")], tmp_path / "raw").facts["kept"] == 2


def test_a_file_can_be_named(cached: Path) -> None:
    put(cached, "train.jsonl", "test.jsonl")
    assert [path.name for path in files(Path("hf:ann/faq:test.jsonl"))] == ["test.jsonl"]
    assert [path.name for path in files(Path(f"hf:ann/faq@{COMMIT}:*.jsonl"))] == ["test.jsonl", "train.jsonl"]


def test_several_configurations_are_asked_about(cached: Path) -> None:
    put(cached, "en/train.jsonl", "de/train.jsonl")
    with pytest.raises(UsageError, match=r"several configurations: de, en\n.*'hf:ann/faq:de/\*'"):
        files(Path("hf:ann/faq"))


def test_what_is_not_there_says_so_without_a_network(cached: Path) -> None:
    with pytest.raises(RemoteError, match="hf:ann/other could not be fetched, and is not in the local cache"):
        files(Path("hf:ann/other"))
    with pytest.raises(UsageError, match="no file of rows"):
        files(Path("hf:ann/faq"))
    with pytest.raises(UsageError, match="no hub id"):
        files(Path("hf:ann"))


@pytest.mark.parametrize("text", ["hf:ann/faq", "hf:/ann/faq", "hf://ann/faq", "hf:ann/f.a-q@v1.0:data/*.csv"])
def test_ids_are_known_by_their_mark(text: str) -> None:
    assert is_hub(Path(text))
    assert ID.match(str(Path(text)))
    assert not is_hub(Path("ann/faq"))
