"""README's first screen is run: its commands, its Python, and the shape of the output that it shows."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BIN = Path(sys.executable).parent
QUESTIONS = ("open an account", "reset my password", "change my address", "cancel an order", "send a parcel back")
PLACES = ("in the shop", "by telephone", "on the web page", "from abroad", "at night", "with a gift card")
FREE = ("before", "after", "base", "tuned", "truth", "Q")  # lines whose rest a model or a data row wrote

pytestmark = pytest.mark.timeout(1500)


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's shell: the venv on the PATH, an empty cache of its own, torch's usual threads."""
    own = ("OMP_NUM_THREADS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # of the test run, not of a user
    kept = {key: value for key, value in os.environ.items() if key not in own}
    return {**kept, "PATH": f"{BIN}:{kept['PATH']}", "TUNESMITH_CACHE": str(tmp_path_factory.mktemp("cache"))}


def run(command: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def demo(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What `make demo` runs, from nothing: the base is pretrained in it."""
    made = run(["make", "-n", "-o", ".venv/.installed", "demo"], ROOT, environment).stdout.strip()
    assert made == ".venv/bin/tunesmith demo"
    return run(["tunesmith", "demo", "--json"], tmp_path_factory.mktemp("demo"), environment)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    rows = [
        {"question": f"How do I {what} {place}?", "answer": f"To {what} {place}, ask the desk and show your card."}
        for what in QUESTIONS
        for place in PLACES
    ]
    (tmp_path / "my_examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def shape(line: str) -> str:
    """A line without its numbers; only the label where a model or the data wrote the rest."""
    label = line.split()[0] if line.split() else ""
    if label in FREE and not re.search(r"\d\.\d{3} ", line):
        return label
    return " ".join(re.sub(r"[-+]?\d[\d,.]*", "#", line).split())


def test_the_demo_prints_what_the_readme_shows(demo: subprocess.CompletedProcess[str]) -> None:
    printed = {shape(line) for line in demo.stderr.splitlines()}
    (shown,) = blocks("text")
    missing = [line for line in shown.splitlines() if line.strip() != "..." and shape(line) not in printed]
    assert not missing


def test_the_tuned_model_beats_its_rivals_outside_the_interval(demo: subprocess.CompletedProcess[str]) -> None:
    found = json.loads(demo.stdout.splitlines()[-1])
    reading = found["reading"]
    assert reading["n"] >= 100
    assert reading["verdict"] == "better"
    assert {arm: cell["verdict"] for arm, cell in reading["arms"].items()} == dict.fromkeys(reading["arms"], "better")
    assert {"majority", "bm25", "base_options"} <= reading["arms"].keys()
    assert found["errors"]["too_long"]["tuned"] < found["errors"]["too_long"]["base"]
    assert Path(found["report"]).is_file()


def test_every_make_target_of_the_readme_exists() -> None:
    targets = [command[1] for command in commands() if command[0] == "make"]
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_the_commands_run_as_written(
    demo: subprocess.CompletedProcess[str], environment: dict[str, str], examples: Path
) -> None:
    folder, ran = examples, 0
    for command in commands():
        if command[0] == "cd":
            folder = folder / command[1]
        elif command[0] == "tunesmith":
            run(command, folder, environment)
            ran += 1
    assert ran >= 5


def test_the_python_runs_as_written(
    demo: subprocess.CompletedProcess[str], environment: dict[str, str], examples: Path
) -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 6
    done = run([sys.executable, "-c", code], examples, environment)
    answer, scores = done.stdout.strip().splitlines()[-2:]
    assert answer
    assert "'tuned':" in scores
    assert (examples / "my_model" / "model.safetensors").is_file()


def test_the_first_screen_is_short_and_starts_with_code() -> None:
    lines = README.splitlines()
    assert next(n for n, line in enumerate(lines, 1) if line.startswith("```")) <= 15
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
