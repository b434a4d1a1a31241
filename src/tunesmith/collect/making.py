"""The loop of `generate`: one request after the other is read in order, and the next are fetched ahead, together.

What is read comes from the engine's store alone. So the rows that a run makes depend on the answers and not on how they
came: a rerun, after whatever end, reads the same answers and asks only for those that are missing.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.collect.asking import Ask, Candidate, Material
from tunesmith.collect.novel import Novel
from tunesmith.collect.recipes import RECIPES, RecipeName
from tunesmith.core.errors import RemoteError, TunesmithError
from tunesmith.core.jsonl import dump
from tunesmith.core.records import Message, Reject, Row
from tunesmith.core.runlog import say
from tunesmith.engine.base import ChatEngine, ChatRequest, Reply, Sampling
from tunesmith.engine.tolerant import ask as fetch
from tunesmith.engine.tolerant import stored
from tunesmith.metrics.overlap import normalise, words

TRIAL, LOWEST = 20, 0.3  # requests; the share of rows accepted in the last so many below which it is not worth going on
AHEAD = 64  # requests
PRIOR = 10  # rows: so many good ones are taken for granted when the share of good ones is guessed
LONGEST = 150  # words of a question (Wang et al. 2023)
SHOWN, RAW = 3, 400  # samples; characters of a rejected row


@dataclass
class Made:
    """What came of it. `used`: requests that were read."""

    rows: list[Row]
    rejects: list[Reject] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)
    used: int = 0

    @property
    def rejected(self) -> dict[str, int]:
        return dict(Counter(reject.reason for reject in self.rejects))


@dataclass(frozen=True)
class Order:
    """What is to be made. `target` None: all that the sources give."""

    recipe: RecipeName
    target: int | None
    sampling: Sampling
    max_overlap: float
    source: str


class Maker:
    """One run of a recipe. `told` is called with the number of rows after each request."""

    def __init__(self, order: Order, material: Material, engine: ChatEngine, told: Callable[[int], None]) -> None:
        self.order, self.material, self.engine, self.told = order, material, engine, told
        self.recipe = RECIPES[order.recipe]
        self.made = Made(material.kept)
        self._source: Iterator[Ask] = self.recipe.asks(material)
        self._queue: deque[Ask] = deque()
        self._pulled = 0
        self._novel = Novel(order.max_overlap, (row.question for row in material.rows))
        self._recent: deque[tuple[int, int]] = deque(maxlen=TRIAL)  # (accepted, seen) of the last requests
        self._samples: deque[str] = deque(maxlen=SHOWN)
        self._failure: TunesmithError | None = None

    def make(self) -> Made:
        """Until the target, or until the sources are used up.

        Raises RemoteError where too few rows are accepted, and what the engine raises once all that was answered is
        read; either says how many rows there are.
        """
        while not self._full() and (ask := self._next()) is not None:
            self._read(ask, *self._answer(ask))
            self.told(len(self.made.rows))
            self._check_rate()
        return self.made

    def first(self, rows: int) -> list[Ask]:
        """What it would ask to begin with, for so many rows or to the end of a block; nothing is asked."""
        out: list[Ask] = []
        while sum(ask.expected for ask in out) < rows and len(out) != self.recipe.block:
            if (ask := self._next()) is None:
                break
            out.append(ask)
        return out

    def request(self, ask: Ask) -> ChatRequest:
        return ChatRequest((Message("user", ask.prompt),), self.order.sampling, ask.schema, ask.sample)

    def _full(self) -> bool:
        return self.order.target is not None and len(self.made.rows) >= self.order.target

    def _next(self) -> Ask | None:
        return self._queue.popleft() if self._queue else self._pull()

    def _pull(self) -> Ask | None:
        ask = next(self._source, None)
        self._pulled += ask is not None
        return ask

    def _answer(self, ask: Ask) -> tuple[Any, str, Reply]:
        request = self.request(ask)
        found = stored(self.engine, request)
        if found is None and self._failure is None:
            try:
                fetch(self.engine, [self.request(one) for one in (ask, *self._ahead(ask))])
            except TunesmithError as error:
                self._failure = error  # what was answered before it is read first
            found = stored(self.engine, request)
        if found is None:
            raise self._stopped()
        return found

    def _ahead(self, ask: Ask) -> list[Ask]:
        """The requests that will probably be needed after this one; a block's rows must be read before the next."""
        accepted, seen = map(sum, zip(*self._recent, strict=True)) if self._recent else (0, 0)
        share = max(LOWEST, (accepted + PRIOR) / (seen + PRIOR))
        missing = math.inf if self.order.target is None else self.order.target - len(self.made.rows)
        most = min(AHEAD, max(1, TRIAL - self.made.used) if self.made.used < TRIAL else AHEAD)
        out: list[Ask] = []
        hoped = ask.expected * share
        while hoped < missing and len(out) + 1 < most:
            if len(out) == len(self._queue):
                following = None if self.recipe.block and self._pulled % self.recipe.block == 0 else self._pull()
                if following is None:
                    break
                self._queue.append(following)
            out.append(self._queue[len(out)])
            hoped += out[-1].expected * share
        return out

    def _read(self, ask: Ask, value: Any, problem: str, reply: Reply) -> None:
        """Judge the candidates of one answer, in order."""
        before, rejected = len(self.made.rows), len(self.made.rejects)
        self.made.used += 1
        self._samples.append(reply.text or f"({reply.finish})")
        following: list[Ask] = []
        if problem:
            reason, _, detail = problem.partition(": ")
            self._reject(reason, detail, reply.text)
        for item in () if problem else ask.read(value):
            if isinstance(item, Ask):
                following.append(item)
            else:
                self._judge(item, ask)
        accepted = len(self.made.rows) - before
        refused = sum(reject.reason != "beyond_target" for reject in self.made.rejects[rejected:])
        if not (accepted or refused or following):
            self._reject("no_rows", "", reply.text)
            refused = 1
        self._queue.extendleft(reversed(following))
        self._recent.append((accepted, accepted + refused))

    def _judge(self, candidate: Candidate, ask: Ask) -> None:
        row, (reason, detail) = candidate.row, (candidate.wrong, candidate.detail)
        if row is not None and not reason:
            reason, detail = self._wrong(row, candidate.fresh)
        if self._full():
            reason, detail = "beyond_target", ""
        if row is None or reason:
            self._reject(reason, detail, dump(row.to_json()) if row else "")
        else:
            self._keep(row, candidate, ask)

    def _wrong(self, row: Row, fresh: bool) -> tuple[str, str]:
        """(reason, detail) for what no recipe may bring, or ("", "")."""
        if not words(row.question) or not words(row.answer):
            return "empty", ""
        if len(words(row.question)) > LONGEST:
            return "too_long", f"{len(words(row.question))} words"
        if normalise(row.question) == normalise(row.answer):
            return "echo", ""
        alike = self._novel.alike(row.question) if fresh else ""
        return ("not_new", alike) if alike else ("", "")

    def _keep(self, row: Row, candidate: Candidate, ask: Ask) -> None:
        number = len(self.made.rows) + 1
        row = replace(row, meta=replace(row.meta, source=self.order.source, line=number))
        facts = {
            "id": row.id,
            "line": number,
            "recipe": self.order.recipe,
            "model": self.engine.name,
            "prompt_sha256": hashlib.sha256(ask.prompt.encode("utf-8", "surrogatepass")).hexdigest(),
            "sample": ask.sample,
        }
        self.made.rows.append(row)
        self.made.provenance.append(facts | dict(candidate.trail))
        if candidate.fresh:
            self._novel.add(row.question)

    def _reject(self, reason: str, detail: str, raw: str) -> None:
        self.made.rejects.append(Reject(self.order.source, self.made.used, reason, detail, raw[:RAW]))

    def _check_rate(self) -> None:
        accepted, seen = map(sum, zip(*self._recent, strict=True))
        if len(self._recent) < TRIAL or self._full() or accepted >= LOWEST * seen:
            return
        for sample in self._samples:
            say(f"  an answer, as it came: {' '.join(sample.split())[:RAW]}")
        commonest = Counter(reject.reason for reject in self.made.rejects).most_common(1)[0]
        what = f"only {accepted} of the last {seen} rows were good enough, in {TRIAL} requests"
        expected = f"at least {LOWEST:.0%}; most often it was '{commonest[0]}' ({commonest[1]} times in all)"
        raise RemoteError(what, expected=expected, fix=self._take_these("a stronger model, or other sources"))

    def _stopped(self) -> TunesmithError:
        """The engine's error, with what there is."""
        error = self._failure or RemoteError("the engine gave no answer")
        wanted = "all" if self.order.target is None else self.order.target
        what = f"{error.what} ({len(self.made.rows)} of {wanted} rows are accepted)"
        return type(error)(what, where=error.where, expected=error.expected, fix=self._take_these(error.fix))

    def _take_these(self, fix: str) -> str:
        """To make do with fewer rows costs nothing: the same requests are read, from the store."""
        count = len(self.made.rows)
        return f"{fix}; or target = {count}, which asks for nothing more" if count else fix
