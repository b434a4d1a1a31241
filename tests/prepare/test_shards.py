import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, RemoteError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl, write_rows
from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.adapters.ray import Ray, run_ranks
from tunesmith.prepare.adapters.slurm import Slurm
from tunesmith.prepare.shards import Job, check_complete, load_job, main, run_local, run_rank, write_shards
from tunesmith.text.length import lengths
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import train_bpe

SETTINGS = {"accepted": {}, "system": "Be brief."}


def rows(count: int) -> list[Row]:
    return [pair(f"question {i}" if i % 7 else "", f"answer {i}", meta=Meta("f", i)) for i in range(1, count + 1)]


def job(folder: Path, count: int = 25, size: int = 10, step: str = "clean") -> Job:
    """A job over shards of rows."""
    folder.mkdir(exist_ok=True)
    write_rows(folder / "rows.jsonl", rows(count))
    lines = (folder / "rows.jsonl").read_text().splitlines()
    made = Job(folder / step, step, folder / "in", write_shards(folder / "in", lines, size), SETTINGS)
    made.save()
    return made


def everything(job: Job) -> dict[str, bytes]:
    shards = [path for path in job.folder.rglob("*") if path.is_file() and path.name != "slurm.sh"]
    return {path.relative_to(job.folder).as_posix(): path.read_bytes() for path in shards if path.suffix != ".out"}


def test_lines_are_cut_into_shards_that_hold_them_all_in_order(tmp_path: Path) -> None:
    lines = [f'{{"n": {i}}}' for i in range(25)]
    assert write_shards(tmp_path / "in", lines, 10) == 3
    shards = [path.read_text().splitlines() for path in sorted(tmp_path.glob("in/0*/rows.jsonl"))]
    assert list(map(len, shards)) == [10, 10, 5]
    assert [line for shard in shards for line in shard] == lines
    assert write_shards(tmp_path / "in", ["never read again"], 10) == 3
    assert write_shards(tmp_path / "none", [], 10) == 1
    (tmp_path / "in/completions/all").unlink()  # killed while it wrote
    assert write_shards(tmp_path / "in", lines[:12], 10) == 2
    assert not (tmp_path / "in/00002").exists()


def test_the_ranks_of_a_job_make_the_same_bytes_in_any_order_and_number_of_processes(tmp_path: Path) -> None:
    one, backward, two = (job(tmp_path / name) for name in ("one", "backward", "two"))
    run_local(one, 1)
    for rank in (2, 0, 1):
        assert run_rank(backward, rank)
    run_local(two, 2)
    made = [{k: v for k, v in everything(j).items() if k != "job.json"} for j in (one, backward, two)]
    assert made[0] == made[1] == made[2]
    kept = [obj for shard in range(3) for obj in read_jsonl(one.shard(shard) / "rows.jsonl")]
    wrong = [obj for shard in range(3) for obj in read_jsonl(one.shard(shard) / "wrong.jsonl")]
    assert len(kept) + len(wrong) == 25
    assert [obj["line"] for obj in wrong] == [7, 14, 21]
    assert {obj["messages"][0]["content"] for obj in kept} == {"Be brief."}


def test_a_finished_shard_is_not_made_again_and_a_changed_one_is(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert run_rank(made, 1)
    assert not run_rank(made, 1)
    other = Job(made.folder, made.step, made.source, made.world, {**SETTINGS, "system": ""})
    assert run_rank(other, 1)
    assert run_rank(made, 1)
    with (made.source / "00001/rows.jsonl").open("a") as file:
        file.write((made.source / "00000/rows.jsonl").read_text())
    assert run_rank(made, 1)
    assert len(list(read_jsonl(made.shard(1) / "index.jsonl"))) == 9 + 9


def test_what_a_killed_rank_left_is_swept_and_made_again(tmp_path: Path) -> None:
    made = job(tmp_path)
    (made.folder / ".00000.99999.tmp").mkdir()
    (made.folder / ".00000.99999.tmp/rows.jsonl").write_text("half a li")
    made.shard(0).mkdir()  # renamed, and killed before its marker was written
    assert run_rank(made, 0)
    assert len(list(read_jsonl(made.shard(0) / "rows.jsonl"))) == 9
    assert not list(made.folder.glob(".*.tmp"))
    with pytest.raises(DataError, match="2 of 3 shards of clean are not finished: 00001, 00002"):
        check_complete(made)


def test_a_rank_can_be_run_by_its_number_alone(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert load_job(made.folder) == Job(made.folder, "clean", made.source.absolute(), 3, SETTINGS)
    main([str(made.folder), "2"])
    assert made.shard(2).is_dir()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere", "0"], "no job.json"),
        (["clean"], "a job folder and a rank"),
        (["clean", "one"], "a job folder and a rank"),
        (["clean", "3"], "no shard 3"),
    ],
)
def test_a_wrong_rank_or_folder_is_refused(
    tmp_path: Path, arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=complaint):
        main(arguments)


def test_an_unknown_step_and_a_missing_shard_are_refused(tmp_path: Path) -> None:
    made = job(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'clean'"):
        run_rank(Job(made.folder, "cleen", made.source, 3), 0)
    with pytest.raises(DataError, match="is missing"):
        run_rank(Job(made.folder, "clean", tmp_path / "gone", 3, SETTINGS), 0)


def test_lengths_are_measured_shard_by_shard(tmp_path: Path) -> None:
    tokenizer = train_bpe(["question answer"], 300)
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    source = job(tmp_path)
    settings = {"tokenizer": str(tmp_path / "tokenizer"), "template": "plain", "train_on": "completion"}
    made = Job(tmp_path / "measure", "measure", source.source, source.world, settings)
    run_local(made, 1)
    found = [number for rank in range(3) for number in read_json(made.shard(rank) / "lengths.json")]
    assert found == lengths(rows(25), Renderer(tokenizer, "plain"))


def fake_sbatch(folder: Path, ranks: str, code: int = 0) -> str:
    """A PATH with an sbatch that runs the script for these tasks, one after the other."""
    folder.mkdir()
    script = folder / "sbatch"
    tasks = f'for i in {ranks}; do SLURM_ARRAY_TASK_ID=$i bash "$2"; done' if ranks else "echo full >&2"
    script.write_text(f'#!/bin/bash\nset -e\ntest "$1" = --wait\n{tasks}\nexit {code}\n')
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_the_slurm_script_makes_the_shard_of_its_task(tmp_path: Path) -> None:
    made = job(tmp_path / "with a space")
    script = tmp_path / "task.sh"
    script.write_text(Slurm(("--partition=cpu",), at_once=2).script(made))
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert {"#SBATCH --array=0-2%2", "#SBATCH --partition=cpu"} <= set(lines)
    subprocess.run(["bash", str(script)], check=True, env={**os.environ, "SLURM_ARRAY_TASK_ID": "1"})
    assert made.shard(1).is_dir()
    assert not made.shard(0).exists()
    without = {key: value for key, value in os.environ.items() if key != "SLURM_ARRAY_TASK_ID"}
    done = subprocess.run(["bash", str(script)], env=without, capture_output=True, text=True)
    assert done.returncode != 0
    assert "SLURM_ARRAY_TASK_ID" in done.stderr
    wrong = {**os.environ, "SLURM_ARRAY_TASK_ID": "7"}
    done = subprocess.run(["bash", str(script)], env=wrong, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[0].startswith("no shard 7 in")) == (2, True)


def test_the_slurm_runner_submits_and_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = job(tmp_path / "here"), job(tmp_path / "there")
    run_local(here, 1)
    monkeypatch.setenv("PATH", fake_sbatch(tmp_path / "bin", "0 1 2"))
    Slurm()(there)
    check_complete(there)
    assert {k: v for k, v in everything(there).items() if k != "job.json"} == {
        k: v for k, v in everything(here).items() if k != "job.json"
    }


def test_slurm_says_what_is_missing_and_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(tmp_path / "here")
    monkeypatch.setenv("PATH", fake_sbatch(tmp_path / "bin", "", 1))
    with pytest.raises(RemoteError, match="sbatch ended with 1: full"):
        Slurm()(made)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError, match="sbatch is not on the PATH; the script of the step 'clean' is written"
    ) as told:
        Slurm()(made)
    assert f"sbatch --wait {made.folder}/slurm.sh; then the same command again" in told.value.fix
    run_local(made, 1)  # as the script does, where there is Slurm
    Slurm()(made)


def test_the_function_that_ray_maps_makes_the_shards_of_its_ranks(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert run_ranks({"id": [0, 2]}, str(made.folder)) == {"id": [0, 2], "made": [True, True]}
    assert run_ranks({"id": [1, 2]}, str(made.folder)) == {"id": [1, 2], "made": [True, False]}
    check_complete(made)


def test_without_ray_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    with pytest.raises(UsageError, match=r"pip install 'tunesmith\[ray\]'"):
        Ray()(made)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"  # no telemetry
