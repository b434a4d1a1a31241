"""Proposals before a person: what is there, what would be, and a key for each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace

from tunesmith.core.records import Message, Row
from tunesmith.diagnose.fixes import Proposal

KEYS = {"y": "yes", "n": "no", "e": "edit", "a": "all of this category", "s": "none of this category", "u": "undo"}
KEYS |= {"q": "quit"}
HELP = "  ".join(f"[{key}] {word}" for key, word in KEYS.items())


def review(
    proposals: Sequence[Proposal],
    read: Callable[[str], str],
    show: Callable[[Proposal, int, int], None],
) -> list[Proposal]:
    """Those that a person accepts, edited where they say so. `read` asks for a key or a line; after `q` none is."""
    said: list[tuple[int, str, Proposal]] = []
    while (place := _waiting(proposals, said)) is not None:
        proposal = proposals[place]
        show(proposal, place + 1, len(proposals))
        key = read(HELP).strip().lower()[:1]
        if key == "q":
            break
        if key == "u":
            said = said[:-1]
        elif key == "e" and proposal.new is not None:
            said.append((place, "y", replace(proposal, new=_typed(proposal.new, read))))
        elif key in ("y", "n", "a", "s"):
            said.append((place, key, proposal))
    return [proposal for proposal in _verdicts(proposals, said).values() if proposal is not None]


def _waiting(proposals: Sequence[Proposal], said: Sequence[tuple[int, str, Proposal]]) -> int | None:
    decided = _verdicts(proposals, said)
    return next((place for place in range(len(proposals)) if place not in decided), None)


def _verdicts(proposals: Sequence[Proposal], said: Sequence[tuple[int, str, Proposal]]) -> dict[int, Proposal | None]:
    """What was said so far, one thing after the other: place -> the proposal, or None where it is refused."""
    out: dict[int, Proposal | None] = {}
    for place, key, proposal in said:
        if key in ("y", "n"):
            out[place] = proposal if key == "y" else None
            continue
        for other, one in enumerate(proposals):
            if one.category == proposal.category:
                out.setdefault(other, one if key == "a" else None)
    return out


def _typed(row: Row, read: Callable[[str], str]) -> Row:
    answer = read("the answer (empty: as it is)").strip()
    return replace(row, messages=(*row.messages[:-1], Message("assistant", answer))) if answer else row


def terminal(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Review at the terminal; what is taken away is red, what is put in is green."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console(stderr=True)

    def read(prompt: str) -> str:
        try:
            return console.input(Text(f"{prompt}: "))
        except EOFError:
            return "q"

    def show(proposal: Proposal, number: int, total: int) -> None:
        row = proposal.row or proposal.new
        assert row is not None, "a proposal has a row, or a new one"
        place = f"{row.meta.source}:{row.meta.line}" if proposal.row else "a new row"
        title = f"{number} of {total}  {proposal.id}  {proposal.action} {place}"
        body = Text(f"{row.question}\n\n")
        for style, part in changes(proposal):
            body.append(part, style=style)
        console.print(Panel(body, title=Text(title), title_align="left", subtitle=Text(proposal.why)))

    return review(proposals, read, show)


def changes(proposal: Proposal) -> list[tuple[str, str]]:
    """The answer in pieces, each with a style: '' stays, "red strike" goes, "green" is new."""
    old = (proposal.row.answer if proposal.row else "").split(" ")
    new = (proposal.new.answer if proposal.new else "").split(" ")
    out = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            out.append(("", " ".join(old[a:b]) + " "))
            continue
        gone, fresh = " ".join(old[a:b]), " ".join(new[c:d])
        out += [(style, f"{text} ") for style, text in (("red strike", gone), ("green", fresh)) if text]
    return out
