"""Kill -9 and Ctrl-C, in a process of its own: what comes out in the end is what would have come out undisturbed.

This file is also that process: `python test_resume.py SET BASE OUT CONFIG SIGNAL CHECKPOINT [resume]` trains, and sends
itself the signal when the checkpoint is there.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.artifact import file_hash, open_artifact
from tunesmith.core.errors import TunesmithError
from tunesmith.train import stage
from tunesmith.train.config import TrainConfig


def disturbed(made: Any, out: Path, number: int, at: int, *, resume: bool = False) -> subprocess.CompletedProcess[str]:
    config = made.config.model_dump_json()
    command = [sys.executable, __file__, str(made.inputs.set_.path), str(made.base), str(out), config]
    command += [str(number), f"step-{at:06d}", *(["resume"] if resume else [])]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_that_was_stopped_and_killed_ends_with_the_weights_of_an_undisturbed_one(
    tuned: Callable[..., Any], tmp_path: Path, method: str
) -> None:
    made, out = tuned("llama", method), tmp_path / "run-1"
    work = tmp_path / "run-1.partial"

    stopped = disturbed(made, out, signal.SIGINT, at=2)
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped at step" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert work.is_dir()
    assert not out.exists()

    killed = disturbed(made, out, signal.SIGKILL, at=4, resume=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (work / "checkpoints" / "step-000004").is_dir()
    assert not out.exists()

    run = stage.run(made.config, made.inputs, out, resume=True)
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    assert file_hash(run.path / "model" / name) == file_hash(made.run.path / "model" / name)
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (made.run.path / "metrics.jsonl").read_text().splitlines()]
    assert [without_times(line) for line in steps] == [without_times(line) for line in expected]
    assert (out / "samples.jsonl").read_bytes() == (made.run.path / "samples.jsonl").read_bytes()
    same = ("steps", "best_step", "train_loss", "val_loss", "trained_tokens", "epochs")
    assert {k: run.facts[k] for k in same} == {k: made.run.facts[k] for k in same}
    assert [p.name for p in tmp_path.iterdir()] == ["run-1"]


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    times = {"seconds", "wait_seconds", "eta_seconds", "tokens_per_second", "trained_tokens_per_second"}
    return {k: v for k, v in line.items() if k not in times | {"mfu", "peak_memory_gb"}}


def main(set_: str, base: str, out: str, config: str, number: str, checkpoint: str, *resume: str) -> int:
    def watch() -> None:
        while not (Path(out + ".partial") / "checkpoints" / checkpoint).is_dir():
            time.sleep(0.0005)
        os.kill(os.getpid(), int(number))

    torch.set_num_threads(1)
    threading.Thread(target=watch, daemon=True).start()
    inputs = stage.TrainInputs(open_artifact(Path(set_), "set"), base)
    try:
        stage.run(TrainConfig(**json.loads(config)), inputs, Path(out), resume=bool(resume))
    except TunesmithError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
