"""From a row to the prompt of an arm: as it is, after examples, or with passages put before the question.

What does not fit into the context loses whole examples or passages, the least near first; never a part of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, NamedTuple

from tunesmith.compare.retrieve import Index
from tunesmith.core.records import Message, Row

Messages = tuple[Message, ...]
Fits = Callable[[Messages], bool]
GIVEN = "Use what is given here where it helps.\n\n{passages}\n\n{question}"


@dataclass(frozen=True)
class Recipe:
    """What stands in a prompt besides the row's own messages, and how much of it."""

    kind: Literal["plain", "shots", "passages"] = "plain"
    count: int = 0
    pick: Literal["nearest", "random"] = "nearest"

    @property
    def text(self) -> str:
        things = {"plain": "nothing added", "shots": f"{self.count} {self.pick} examples"}
        return things.get(self.kind, f"{self.count} nearest passages")


class Prompt(NamedTuple):
    """The messages, and how many examples or passages did not fit."""

    messages: Messages
    dropped: int = 0


class Prompts:
    """Makes prompts from training rows and documents. The random examples are the same for every row."""

    def __init__(self, training: Sequence[Row], documents: Sequence[str], seed: int) -> None:
        """`documents`: passages to retrieve; the training rows, questions with answers, where there are none.

        Raises DataError where there is nothing to retrieve.
        """
        self._known = [row for row in training if row.question and row.reference]
        self._examples = Index([row.question for row in self._known])
        self._shuffled = Random(seed).sample(range(len(self._known)), len(self._known))
        self._passages = list(documents) or [f"{row.question}\n{row.reference}" for row in self._known]
        self._found = Index(self._passages) if documents else self._examples

    def build(self, recipe: Recipe, row: Row, fits: Fits) -> Prompt:
        """The prompt of a row; `fits` says whether messages leave room for an answer."""
        ranked = self._ranked(recipe, row)
        for kept in range(len(ranked), 0, -1):
            messages = self._with(recipe, row.prompt, ranked[:kept])
            if fits(messages):
                return Prompt(messages, len(ranked) - kept)
        return Prompt(row.prompt, len(ranked))

    def _ranked(self, recipe: Recipe, row: Row) -> list[int]:
        """Best first, of random examples in the order that they were drawn in."""
        if recipe.pick == "random":
            return self._shuffled[: recipe.count]
        index = self._found if recipe.kind == "passages" else self._examples
        return index.nearest(row.question, recipe.count)

    def _with(self, recipe: Recipe, prompt: Messages, places: Sequence[int]) -> Messages:
        """The best example stands last, next to the question; of passages the best stands first."""
        if recipe.kind == "passages":
            return with_passages(prompt, [self._passages[place] for place in places])
        return with_examples(prompt, [self._known[place] for place in reversed(places)])


def with_examples(prompt: Messages, examples: Sequence[Row]) -> Messages:
    """Examples as turns of the conversation, after the row's system message and without their own."""
    head = prompt[:1] if prompt[:1] and prompt[0].role == "system" else ()
    turns = [(*(m for m in row.prompt if m.role != "system"), Message("assistant", row.reference)) for row in examples]
    return (*head, *(message for turn in turns for message in turn), *prompt[len(head) :])


def with_passages(prompt: Messages, found: Sequence[str]) -> Messages:
    """Passages before the last question, in the same message."""
    place = max(n for n, message in enumerate(prompt) if message.role == "user")
    asked = GIVEN.format(passages="\n\n".join(found), question=prompt[place].content)
    return (*prompt[:place], replace(prompt[place], content=asked), *prompt[place + 1 :])
