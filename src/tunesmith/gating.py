"""What `gate` gathers from a project: the evidence on one run, and whether base, data and run are still the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import UsageError
from tunesmith.core.jsonl import read_json, write_json
from tunesmith.core.project import Project
from tunesmith.evaluate import gate as stage
from tunesmith.loop import new_place, stage_config

FILE = "gate.json"


def gate(project: Project, name: str | None = None, run_name: str | None = None) -> Artifact:
    """Decide on a run, the newest where none is named, and keep the evidence: evals/gate-N/gate.json."""
    config = stage_config(project, "gate", stage.GateConfig)
    out = new_place(project, "gate", name)
    made = stage.seal_evidence(config, evidence(project, config, run_name))
    with writing(out) as work:
        write_json(work / FILE, made)
        facts = {key: made[key] for key in ("decision", "exit_code", "reasons")}
        return seal(work, out, "gate", {**facts, "parents": {"run": made["evidence"]["sources"]["run"]}})


def evidence(project: Project, config: stage.GateConfig, run_name: str | None = None) -> dict[str, Any]:
    """All that was measured of a run, as plain data: the newest evaluation, tests of each suite and benchmark of it."""
    from tunesmith.evaluate.catalogue import meaning
    from tunesmith.evaluate.report import RANKING

    run = project.open("run", run_name)
    if not run.facts.get("base_hash"):
        raise UsageError(f"the run {run.name} has no base to be held against: it was pretrained", fix="tunesmith train")
    found = {kind: list(_of(project, kind, run)) for kind in ("eval", "test", "benchmark")}
    evals = [one for one in found["eval"] if _fits(one, run)][:1]
    tests = list({one.facts["suite"]: one for one in reversed(found["test"])}.values())
    benchmarks = found["benchmark"][:1]
    quality = [stage.quality_of(read_json(one.path / "report.json"), config.metric, RANKING) for one in evals]
    quality = [one | {"higher_is_better": meaning(one["metric"]).higher_is_better} for one in quality]
    sources = {one.name: {"name": one.name, "hash": one.hash} for one in (*evals, *tests, *benchmarks)}
    return {
        "hashes": _hashes(run),
        "sources": {"run": {"name": run.name, "hash": run.hash}, "set": run.facts["set"], **sources},
        "parity": run.facts.get("parity"),
        "quality": quality[0] if quality else None,
        "suites": [one for test in tests for one in stage.suites_of(read_json(test.path / "report.json"))],
        "forgetting": [
            one for made in benchmarks for one in stage.forgetting_of(read_json(made.path / "benchmark.json"))
        ],
    }


def replay(file: Path, project: Project | None) -> dict[str, Any]:
    """The decision of an evidence file again. In a project, base, data and run must be those that it speaks of.

    Raises DataError where anything was changed.
    """
    if not file.is_file():
        raise UsageError(f"there is no file {file}", expected=f"the {FILE} of a gate")
    made = read_json(file)
    return stage.replay(made, _now(project, made) if project else None)


def simulate(project: Project | None, run_name: str | None = None) -> dict[str, Any]:
    """How often the gate is wrong on evidence of the size that a run has; outside a project, on a usual one."""
    from tunesmith.evaluate.gate_odds import RUNS, Shape, odds

    config = stage_config(project, "gate", stage.GateConfig) if project else stage.GateConfig()
    shape = Shape.of(evidence(project, config, run_name)) if project and project.names("run") else Shape()
    found = odds(config, shape)
    return {"runs": RUNS, "shape": asdict(shape), "odds": found, "false_alarms": found[0]["wrong"]}


def _of(project: Project, kind: str, run: Artifact) -> Iterator[Artifact]:
    """The artifacts of a kind that speak of a run as it is, newest first."""
    for name in reversed(project.names(kind)):
        found = open_artifact(project.place(kind) / name, kind)
        if found.facts.get("parents", {}).get("run", {}).get("hash") == run.hash:
            yield found


def _fits(made: Artifact, run: Artifact) -> bool:
    """Whether an evaluation is one of the test rows of the data that the run was trained on."""
    same = made.facts["parents"]["set"]["hash"] == run.facts["data_hash"]
    return same and made.facts.get("split") == "test"


def _hashes(run: Artifact) -> dict[str, str]:
    return {"base": run.facts["base_hash"], "data": run.facts["data_hash"], "run": run.hash}


def _now(project: Project, made: Any) -> dict[str, str]:
    """The hashes as they are: every file of run and set is read; of the base too, where it lies on this machine."""
    sources = made.get("evidence", {}).get("sources", {}) if isinstance(made, dict) else {}
    if "run" not in sources:
        return {}  # no evidence file: the replay says so
    run = project.open("run", sources["run"]["name"])
    data = project.open("set", sources["set"])
    base = Path(run.facts["base_path"])
    return _hashes(run) | {"data": data.hash} | ({"base": _base_hash(base)} if base.is_dir() else {})


def _base_hash(folder: Path) -> str:
    from tunesmith.model.load import base_hash

    return base_hash(folder)
