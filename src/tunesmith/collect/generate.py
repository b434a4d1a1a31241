"""generate: new rows from rows and documents, by any OpenAI-compatible endpoint or a local model.

Given the same answers the same rows come out. Answers are kept in one file, so a rerun resumes and pays nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import Field

from tunesmith.collect.asking import Material
from tunesmith.collect.making import Made, Maker, Order
from tunesmith.collect.recipes import RECIPES, RecipeName
from tunesmith.collect.sources import read_sources
from tunesmith.core.artifact import Artifact, file_hash, open_artifact, seal, writing
from tunesmith.core.errors import DataError, Interrupted, ResourceError, UsageError
from tunesmith.core.jsonl import write_json, write_jsonl, write_rows
from tunesmith.core.runlog import Progress, say
from tunesmith.engine.answers import Answers
from tunesmith.engine.base import ChatEngine, Sampling
from tunesmith.engine.endpoint import EndpointConfig
from tunesmith.engine.pace import Clock
from tunesmith.engine.remote import RemoteChat

VERSION = 2  # of what the same answers become; part of an artifact's name
TARGET = 100  # rows, where none is asked for and the recipe has no end of its own
STORE = "answers.db"
# Of the run, not of its rows: other values give the same artifact.
RUNNING = frozenset(EndpointConfig.model_fields) - {"model"}

HINTS = {
    "rows": "collect some examples first: tunesmith collect FILE",
    "documents": "name the documents: tunesmith generate --recipe questions FILE.md",
    "topic": 'topic = "..." under [generate] in tunesmith.toml',
}


class GenerateConfig(EndpointConfig):
    """What is generated, by which endpoint, and at what cost at most."""

    recipe: RecipeName = "self-instruct"
    """self-instruct, questions (from documents), paraphrase, guard (off-topic rows), or rewrite (weak answers)"""
    target: int | None = Field(default=None, ge=1)
    """accepted rows to deliver; None for 100 or what the sources give, or for rewrite every weak answer"""
    topic: str = ""
    """what the rows are about, in a few words, as in "Lamini's documentation"; guard rows name it in their reply"""
    seed: int = 0
    """of the order of sources and examples, and of the sampling"""
    temperature: float = Field(default=0.8, ge=0, le=2)
    """of the sampling"""
    max_tokens: int = Field(default=2048, ge=1)
    """the most tokens of one answer; an answer that reaches it is rejected"""
    max_overlap: float = Field(default=0.7, gt=0, le=1)
    """a question whose ROUGE-L with any row's, old or new, is above this is rejected"""
    guard_reply: str = "Let's keep the discussion relevant to {topic}."
    """the one constant answer of guard rows"""
    ids: tuple[str, ...] = ()
    """paraphrase and rewrite these rows only, by id or its beginning; empty for all, or for all weak ones"""
    review: bool = False
    """put the rows in a queue for people first: only what they accept becomes data"""


def run(
    config: GenerateConfig,
    inputs: Sequence[Artifact | Path],
    out: Path,
    engine: ChatEngine | None = None,
    store: Path | None = None,
) -> Artifact:
    """Make rows from raw artifacts and document files, as a raw artifact `out`/<id>; with review, as a draft beside it.

    `engine` in place of the configured endpoint; `store` is the file of answers (`out`/../answers.db where not given).
    Raises RemoteError (6) where the endpoint fails for good, a cap would be passed or too little is accepted,
    DataError (3) where the sources are used up before the target; each says how many rows there are.
    """
    material = material_of(config, inputs)
    if (made := _again(config, inputs, engine)) is not None:
        say(f"  the same was made before: {made.path}; another target, seed or recipe makes more")
        return made
    final = _place(config, out) / _identity(config, inputs, engine)
    if final.exists():
        return open_artifact(final)
    with ExitStack() as stack:
        if engine is None:
            engine = connect(config, inputs, store or out.parent / STORE)
            stack.callback(engine.close)
        return _guarded(config, material, final, engine)


def _again(config: GenerateConfig, inputs: Sequence[Artifact | Path], engine: ChatEngine | None) -> Artifact | None:
    """The input that this very run made of those before it: the same command again is no wish for more."""
    files = [given for given in inputs if isinstance(given, Path)]
    raw = [given for given in inputs if isinstance(given, Artifact)]
    found = (one for n, one in enumerate(raw) if one.name == _identity(config, [*raw[:n], *files], engine))
    return next(found, None)


def _guarded(config: GenerateConfig, material: Material, final: Path, engine: ChatEngine) -> Artifact:
    """Make them; what a person or a full disk breaks off says how to go on."""
    try:
        return _make(config, material, final, engine)
    except KeyboardInterrupt:
        what = f"stopped: {len(material.kept)} rows are accepted, and what was answered is kept"
        raise Interrupted(what, fix="run the same command again") from None
    except sqlite3.OperationalError as error:  # the store is locked, or its disk is full
        raise ResourceError(f"the file of answers cannot be written: {error}", fix="free some space") from error


def connect(
    config: GenerateConfig, inputs: Sequence[Artifact | Path], store: Path, clock: Clock | None = None
) -> RemoteChat:
    """The configured endpoint. Caps and ledger are those of all runs of this recipe on these inputs, of any target."""
    return RemoteChat(config, Answers(store), _identity(config, inputs, None, with_target=False), clock)


def _make(config: GenerateConfig, material: Material, final: Path, engine: ChatEngine) -> Artifact:
    with Progress("rows", wanted(config) or len(material.rows)) as bar:
        maker = maker_of(config, material, engine, final.name, lambda rows: bar.advance("accepted", rows - bar.done))
        made = maker.make()
    _check(config, made)
    return _write(config, final, made, engine)


def wanted(config: GenerateConfig) -> int | None:
    """Rows to make; None for all that there are."""
    return config.target or (None if config.recipe == "rewrite" else TARGET)


def maker_of(
    config: GenerateConfig, material: Material, engine: ChatEngine, name: str, told: Callable[[int], None]
) -> Maker:
    sampling = Sampling(config.max_tokens, config.temperature, seed=config.seed)
    source = f"generated/{config.recipe}-{name}"
    return Maker(Order(config.recipe, wanted(config), sampling, config.max_overlap, source), material, engine, told)


def material_of(config: GenerateConfig, inputs: Sequence[Artifact | Path]) -> Material:
    """What the recipe works with. Raises UsageError where it needs what is not there."""
    found = read_sources(inputs)
    there = {"rows": bool(found.rows), "documents": bool(found.pieces), "topic": bool(config.topic)}
    for need in RECIPES[config.recipe].needs:
        if not there[need]:
            raise UsageError(f"{config.recipe} needs {need}, and there is none", fix=HINTS[need])
    if config.recipe in ("self-instruct", "guard") and not any(row.meta.origin == "human" for row in found.rows):
        raise UsageError(f"{config.recipe} needs rows that people wrote", fix=HINTS["rows"])
    reply = config.guard_reply.replace("{topic}", config.topic)
    material = Material(found.rows, found.pieces, config.topic, reply, config.seed, config.ids, found.collected)
    for name in config.ids:
        if not any(material.is_named(row, name) for row in material.rows):
            raise UsageError(f"no row has the id {name}", expected="an id of examples.jsonl, or its beginning")
    return material


def _place(config: GenerateConfig, out: Path) -> Path:
    """Drafts lie where `prepare` does not look."""
    return out.parent / "drafts" if config.review else out


def _identity(
    config: GenerateConfig, inputs: Sequence[Artifact | Path], engine: ChatEngine | None, with_target: bool = True
) -> str:
    """The name of what comes of this: recipe, model and sources, wherever the endpoint is and whatever it may cost."""
    left_out = RUNNING | ({"review"} if with_target else {"review", "target"})
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key not in left_out}
    settings["model"] = engine.name if engine else config.model
    hashes = [given.hash if isinstance(given, Artifact) else [given.name, file_hash(given)] for given in inputs]
    blob = json.dumps([VERSION, settings, hashes], sort_keys=True)
    return hashlib.sha256(blob.encode()).hexdigest()[:12]


def _check(config: GenerateConfig, made: Made) -> None:
    """Raise DataError where the sources were used up too soon."""
    count = len(made.rows)
    if count >= (config.target or 1):
        return
    reasons = ", ".join(f"{n} {reason}" for reason, n in made.rejected.items()) or "none"
    wish = f"{count} of {config.target}" if config.target else "no"
    what = f"the sources are used up: {wish} rows are accepted, after {made.used} requests"
    fix = f"target = {count}, which asks for nothing more; or add sources" if count else "add sources, or name ids"
    raise DataError(what, expected=f"more rows or documents; rejected: {reasons}", fix=fix)


def _write(config: GenerateConfig, final: Path, made: Made, engine: ChatEngine) -> Artifact:
    rejected = made.rejected
    receipt = {
        "raw_id": final.name,
        "recipe": config.recipe,
        "model": engine.name,
        "requested": wanted(config),
        "rows_in": len(made.rows) + sum(rejected.values()),
        "kept": len(made.rows),
        "rejected": rejected,
        "requests_used": made.used,
        "spent": engine.spent(),
    }
    with writing(final) as work:
        write_rows(work / "examples.jsonl", made.rows)
        write_jsonl(work / "rejects.jsonl", (reject.to_json() for reject in made.rejects))
        write_jsonl(work / "provenance.jsonl", made.provenance)
        write_json(work / "receipt.json", receipt)
        facts = receipt | {"config": config.model_dump(mode="json")}
        artifact = seal(work, final, "draft" if config.review else "raw", facts)
    say(f"{config.recipe}: {len(made.rows)} rows of {receipt['rows_in']} were accepted; rejected: {rejected or 'none'}")
    return artifact
