"""How new rows are asked for: a table of recipes. Each gives requests, one after the other, and reads what comes back.

A request's words depend on the sources, the seed and its place in the order alone (of self-instruct also on the rows
that were kept before its block of 20), never on timing or on the target: a rerun asks the same, and finds it answered.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tunesmith.collect.asking import Ask, Candidate, Material, form, items, misshapen, rows_of, with_message
from tunesmith.collect.grounding import Chunk, about_text, unsupported
from tunesmith.core.records import Meta, Row, pair
from tunesmith.metrics.overlap import words
from tunesmith.metrics.style import repetition

BLOCK = 20  # requests
HUMAN, MACHINE = 6, 2  # examples in a self-instruct prompt (Wang et al. 2023)
ROWS = 5  # asked for in one request
VARIANTS = 3  # paraphrases of a question
PASSES = 3  # over the same sources, each asking for something else
GROUP = ("far", "near", "order", "chat", "miss")  # guard requests in turn; the last asks for rows that are no guard

# Who asks, and how: assigned in turn, so that not every question opens alike.
REGISTERS = (
    "a newcomer, who asks how something is done",
    "somebody in a hurry, in a few words without a question mark",
    "an engineer, who asks for an exact value, name or limit",
    "somebody whose attempt went wrong, who says what happened and asks what to do",
    "somebody who asks why it is so",
    "somebody typing fast on a phone, with one or two spelling mistakes",
    "a customer, politely and in two sentences",
    "somebody who asks for a comparison or a choice",
    "somebody who asks whether something is so, to be answered in a full sentence that does not open with yes or no",
    "somebody who gives an order instead of asking (explain, list, show)",
)
FIELDS_OFF = (
    "cooking|football|gardening|a holiday trip|an illness|film stars|tax law|car repair|pets|astrology|dating|music"
)
GUARDS = {
    "far": "on a subject that has nothing to do with {topic}: {thing}",
    "near": "on a neighbouring field that sounds like {topic} but is not (another product, company or subject)",
    "order": "that try to turn the assistant away from {topic}: to drop its rules, play a role, show its instructions",
    "chat": "that are small talk: greetings, jokes, the weather, how the assistant feels, what it thinks of {thing}",
}
_NEGATIONS = frozenset(
    words("not no never none without cannot cant dont doesnt isnt wont arent didnt couldnt shouldnt nothing")
)
_BOILERPLATE = re.compile(r"\bas an? (?:ai|artificial|language model)\b|\bi(?:'|’)?m sorry, but i can", re.IGNORECASE)
_ENDS = re.compile(r"[.!?:;…)\]}\"'”’`|>*。！？]\s*$")


PAIRS = rows_of(question="string", answer="string")
QUESTIONS = rows_of(question="string")
FACTS = rows_of(fact="string")
NUMBERED = rows_of(number="integer", question="string", answer="string")
NUMBERED_QUESTIONS = rows_of(number="integer", question="string")
ANSWERS = rows_of(answer="string")


def _about(topic: str) -> str:
    return f" about {topic}" if topic else ""


def self_instruct(m: Material) -> Iterator[Ask]:
    """New questions and answers in the manner of six human examples and two that were made before."""
    human = [row for row in m.rows if row.meta.origin == "human"]
    machine: tuple[Row, ...] = ()
    for number in itertools.count():
        if number % BLOCK == 0:
            machine = tuple(m.kept)
        rng = m.random("demos", number)
        demos = rng.sample(human, min(HUMAN, len(human))) + rng.sample(machine, min(MACHINE, len(machine)))
        rng.shuffle(demos)
        shown = "\n\n".join(f"Question: {row.question}\nAnswer: {row.answer}" for row in demos)
        prompt = (
            f"Here are examples of what users ask an assistant{_about(m.topic)}, and of its answers.\n\n{shown}\n\n"
            f"Write {ROWS} new ones. Each asks for something that no example asks for, in words of its own; vary how "
            "the questions begin and how long they are. Answer as exactly and in the same tone as the examples do, and "
            "state nothing that you are not sure of."
        )
        trail = {"demos": [m.id_of(row) for row in demos]}

        def read(value: Any, trail: dict[str, Any] = trail) -> Iterator[Candidate | Ask]:
            for item in items(value, PAIRS):
                row = item and pair(item["question"], item["answer"], meta=Meta(origin="generated"))
                yield Candidate(row, trail) if row else misshapen(trail)

        yield Ask(prompt + form(PAIRS), PAIRS, read, ROWS, number)


def questions(m: Material) -> Iterator[Ask]:
    """From documents: first the facts of a piece, then one question and answer a fact, each asked by somebody else."""
    for turn in range(PASSES):
        order = list(m.chunks)
        m.random("chunks", turn).shuffle(order)
        for chunk in order:
            yield _facts(m, chunk, turn)


def _facts(m: Material, chunk: Chunk, turn: int) -> Ask:
    more = " Leave out the most obvious ones: they were listed before." if turn else ""
    prompt = (
        f"Here is a piece of a document{_about(m.topic)}.\n\n---\n{chunk.whole}\n---\n\nList the separate facts in it "
        "that a user could need, at most ten, each as one full sentence that can be understood without the document "
        f"(names in place of it, this and they). Use only what stands there.{more}"
    )
    trail = {"document": chunk.document, "chunk": chunk.number}

    def read(value: Any) -> Iterator[Candidate | Ask]:
        good = []
        for item in items(value, FACTS):
            fact = item["fact"] if item else ""
            missing = unsupported(fact, chunk.whole)
            if not item:
                yield misshapen(trail)
            elif missing or not fact:
                yield Candidate(None, trail, "ungrounded_fact", f"{', '.join(missing)}: {fact}")
            else:
                good.append(fact)
        if good:
            yield _asked(m, chunk, good, turn)

    return Ask(prompt + form(FACTS), FACTS, read, ROWS, turn)


def _asked(m: Material, chunk: Chunk, facts: Sequence[str], turn: int) -> Ask:
    """One question and answer a fact."""
    start = m.random("registers", chunk.place, turn).randrange(len(REGISTERS))
    who = [REGISTERS[(start + place) % len(REGISTERS)] for place in range(len(facts))]
    listed = "\n".join(
        f"{n}. {fact}\n   asked by {one}" for n, (fact, one) in enumerate(zip(facts, who, strict=True), 1)
    )
    prompt = (
        f"Here is a piece of a document{_about(m.topic)}.\n\n---\n{chunk.whole}\n---\n\nAnd facts from it, each with "
        f"who asks about it:\n\n{listed}\n\nWrite for each fact the question of that person, and its answer. "
        "The person does not know the document, so name things by their names and never speak of a text, passage or "
        "fact. The answer is complete in itself, and says only what stands in the document."
    )

    def read(value: Any) -> Iterator[Candidate | Ask]:
        for item in items(value, NUMBERED):
            trail: dict[str, Any] = {"document": chunk.document, "chunk": chunk.number}
            if not item or not 1 <= item["number"] <= len(facts):
                yield misshapen(trail)
                continue
            fact = facts[item["number"] - 1]
            trail |= {"fact": fact, "register": who[item["number"] - 1]}
            group = f"{chunk.place}/{hashlib.sha256(fact.casefold().encode('utf-8', 'replace')).hexdigest()[:8]}"
            row = pair(item["question"], item["answer"], meta=Meta(origin="generated", group=group))
            yield Candidate(row, trail, *_ungrounded(row, chunk.whole))

    return Ask(prompt + form(NUMBERED), NUMBERED, read, len(facts), turn)


def _ungrounded(row: Row, source: str) -> tuple[str, str]:
    both = f"{row.question}\n{row.answer}"
    if spoken := about_text(both):
        return "about_the_text", spoken
    missing = unsupported(both, source)
    return ("ungrounded", ", ".join(missing)) if missing else ("", "")


def paraphrase(m: Material) -> Iterator[Ask]:
    """Other ways to ask the same; the answer stays, and the new row stays in its parent's split."""
    parents = m.parents()
    for turn, parent in itertools.product(range(PASSES), parents):
        start = m.random("registers", parent.id, turn).randrange(len(REGISTERS))
        who = "\n".join(f"- {REGISTERS[(start + n) % len(REGISTERS)]}" for n in range(VARIANTS))
        prompt = (
            f"A user asked an assistant{_about(m.topic)}:\n\n{parent.question}\n\nWrite {VARIANTS} other ways to ask "
            "exactly this, so that the very same answer fits. Keep every name, number and condition; change the words "
            f"and the order. One by each of:\n{who}"
        )

        def read(value: Any, parent: Row = parent) -> Iterator[Candidate | Ask]:
            trail = {"parents": [m.id_of(parent)]}
            for item in items(value, QUESTIONS):
                row = item and with_message(parent, "user", item["question"], "generated")
                yield Candidate(row, trail, *_drift(parent, row.question, strict=True)) if row else misshapen(trail)

        yield Ask(prompt + form(QUESTIONS), QUESTIONS, read, VARIANTS, turn)


def _drift(parent: Row, question: str, strict: bool) -> tuple[str, str]:
    """Whether a question asks for something else than its parent: a name or number gone or new, a "not" too many.

    This does not judge meaning; it finds the changes that most often turn it.
    """
    gone = unsupported(parent.question, question)
    new = unsupported(question, f"{parent.question}\n{parent.answer}") if strict else []
    if gone or new:
        return "meaning_changed", ", ".join([*(f"without {name}" for name in gone), *(f"with {name}" for name in new)])
    if _negated(parent.question) != _negated(question):
        return "meaning_changed", "negated"
    return "", ""


def _negated(text: str) -> bool:
    plain = text.casefold().replace("'", "").replace("’", "")
    return not _NEGATIONS.isdisjoint(words(plain))


def guard(m: Material) -> Iterator[Ask]:
    """Off-topic questions with one constant answer, and near misses: on-topic ones that only sound off-topic."""
    things = FIELDS_OFF.split("|")
    for number in itertools.count():
        kind, thing = GROUP[number % len(GROUP)], things[m.random("thing", number).randrange(len(things))]
        yield _near_miss(m, number) if kind == "miss" else _off_topic(m, kind, thing, number)


def _off_topic(m: Material, kind: str, thing: str, number: int) -> Ask:
    what = GUARDS[kind].replace("{topic}", m.topic).replace("{thing}", thing)
    prompt = (
        f"An assistant answers questions about {m.topic}, and nothing else. Write {ROWS} messages of users {what}. "
        "They come from different people: some short, some long, some careless, some polite. None of them is about "
        f"{m.topic} itself."
    )
    group = f"guard {kind} {thing}" if "{thing}" in GUARDS[kind] else f"guard {kind} {number}"
    own = {name.casefold() for name in re.findall(r"\b[A-Z]\w+", m.topic)} if kind in ("far", "chat") else set()

    def read(value: Any) -> Iterator[Candidate | Ask]:
        for item in items(value, QUESTIONS):
            if not item:
                yield misshapen({"guard": kind})
                continue
            row = pair(item["question"], m.reply, meta=Meta(origin="guard", group=group))
            on_topic = sorted(own.intersection(words(row.question)))
            yield Candidate(row, {"guard": kind}, "on_topic" if on_topic else "", ", ".join(on_topic))

    return Ask(prompt + form(QUESTIONS), QUESTIONS, read, ROWS, number)


def _near_miss(m: Material, number: int) -> Ask:
    """Questions that people asked, dressed in words of another subject; their answers stay."""
    parents = m.random("miss", number).sample(m.parents(), min(ROWS, len(m.parents())))
    listed = "\n".join(f"{n}. {row.question}" for n, row in enumerate(parents, 1))
    prompt = (
        f"These questions were put to an assistant for {m.topic}:\n\n{listed}\n\nWrite each anew so that at first it "
        "sounds as if it were about something else (a hobby, another trade, small talk), though it still asks for "
        "exactly the same, and the same answer fits. Keep every name and number."
    )

    def read(value: Any) -> Iterator[Candidate | Ask]:
        for item in items(value, NUMBERED_QUESTIONS):
            if not item or not 1 <= item["number"] <= len(parents):
                yield misshapen({"guard": "near miss"})
                continue
            parent = parents[item["number"] - 1]
            row = with_message(parent, "user", item["question"], "generated")
            wrong, detail = _drift(parent, row.question, strict=False)
            yield Candidate(row, {"guard": "near miss", "parents": [m.id_of(parent)]}, wrong, detail)

    return Ask(prompt + form(NUMBERED_QUESTIONS), NUMBERED_QUESTIONS, read, len(parents), number)


def rewrite(m: Material) -> Iterator[Ask]:
    """Better answers for weak ones: those that are named, else those that `weak` finds."""
    documents = "\n".join(chunk.whole for chunk in m.chunks)
    for parent in m.parents():
        reason = weak(parent.answer) or ("named" if m.ids else "")
        if not reason:
            continue
        prompt = (
            f"A user asked an assistant{_about(m.topic)}:\n\n{parent.question}\n\nIts answer was:\n\n{parent.answer}\n"
            f"\nThe answer is weak ({reason}). Write a better one: complete, clear, no longer than it must be, and "
            "without any name, number or claim that is not in the question or in the old answer."
        )

        def read(value: Any, parent: Row = parent, reason: str = reason) -> Iterator[Candidate | Ask]:
            trail = {"parents": [m.id_of(parent)], "replaces": m.id_of(parent), "reason": reason}
            for item in itertools.islice(items(value, ANSWERS), 1):
                row = item and with_message(parent, "assistant", item["answer"], "edited")
                source = f"{parent.question}\n{parent.answer}\n{documents}"
                yield Candidate(row, trail, *_worse(row, parent, source), fresh=False) if row else misshapen(trail)

        yield Ask(prompt + form(ANSWERS), ANSWERS, read, 1, 0)


def _worse(row: Row, parent: Row, source: str) -> tuple[str, str]:
    if row.answer == parent.answer:
        return "unchanged", ""
    if reason := weak(row.answer):
        return "still_weak", reason
    missing = unsupported(row.answer, source)
    return ("ungrounded", ", ".join(missing)) if missing else ("", "")


def weak(answer: str) -> str:
    """Why an answer is worth rewriting: hardly there, cut off, looping or boilerplate; "" where it is none of these."""
    count = len(words(answer))
    if count < 3:
        return "hardly an answer"
    if count >= 8 and not _ENDS.search(answer):
        return "cut off in the middle of a sentence"
    if evidence := repetition(answer):
        return f"repeats itself: {evidence}"
    return "boilerplate" if _BOILERPLATE.search(answer) else ""


class Recipe(NamedTuple):
    """A row of the table. `block`: how many requests may be on their way before their rows count as examples;
    `steps`: how many requests, one because of the other, bring its rows."""

    asks: Callable[[Material], Iterator[Ask]]
    needs: tuple[str, ...]  # of: rows, documents, topic
    block: int | None = None
    steps: int = 1


RecipeName = Literal["self-instruct", "questions", "paraphrase", "guard", "rewrite"]
RECIPES: Mapping[RecipeName, Recipe] = {
    "self-instruct": Recipe(self_instruct, ("rows",), BLOCK),
    "questions": Recipe(questions, ("documents",), steps=2),
    "paraphrase": Recipe(paraphrase, ("rows",)),
    "guard": Recipe(guard, ("rows", "topic")),
    "rewrite": Recipe(rewrite, ("rows",)),
}
