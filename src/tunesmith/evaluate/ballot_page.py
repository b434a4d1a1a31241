"""The terminal page of a vote: a prompt, two answers, one key. Works through a pipe too, a letter a choice."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tunesmith.evaluate.votes import Booth, Choice, Shown

if TYPE_CHECKING:
    from rich.console import Console

KEYS: dict[str, Choice] = {"a": "left", "b": "right", "t": "tie", "n": "both_bad", "s": "skip"}
ARROWS = {"\x1b[D": "a", "\x1b[C": "b", "\x1b[A": "t", "\x1b[B": "n"}  # left, right, up, down
HELP = (
    "[a] or ← A is better   [b] or → B   [t] or ↑ as good   [n] or ↓ neither will do   [s] skip   [u] undo   [q] quit"
)
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # an answer must not move the cursor or change colours


def vote(booth: Booth, read: Callable[[], str], show: Callable[[Shown, dict[str, int]], None]) -> dict[str, int]:
    """Ask until all pairs are decided or the person quits; the counts. `read` gives a key, "" at the end of input."""
    while (shown := booth.next()) is not None:
        show(shown, booth.progress())
        while (key := ARROWS.get(given := read(), given.lower())) not in (*KEYS, "u", "q", ""):
            pass
        if key in KEYS:
            booth.choose(shown, KEYS[key])
        elif key != "u":
            break
        elif not booth.undo():
            continue
    return booth.progress()


def terminal(booth: Booth) -> dict[str, int]:
    """Vote at the terminal, with single keys; each choice is kept at once, so Ctrl-C loses none."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with keys(sys.stdin) as read:
        return vote(booth, read, lambda shown, counts: page(console, shown, counts))


def page(console: Console, shown: Shown, counts: dict[str, int]) -> None:
    """Side by side where there is room."""
    from rich.columns import Columns
    from rich.panel import Panel
    from rich.text import Text

    console.rule(Text(f"{counts['voted']} voted, {counts['left']} to go"))
    for message in shown.ballot.prompt:
        console.print(Panel(Text(plain(message.content)), title=message.role, title_align="left"))
    half = (console.width - 1) // 2 if console.width >= 100 else None
    answers = [
        Panel(Text(plain(text)), title=name, title_align="left", width=half)
        for name, text in zip("AB", shown.texts, strict=True)
    ]
    console.print(*([Columns(answers, padding=(0, 1))] if half else answers))
    console.print(Text(HELP))


def plain(text: str) -> str:
    """Without what a terminal would obey."""
    return UNPRINTABLE.sub("�", text.replace("\r\n", "\n"))


@contextmanager
def keys(stream: TextIO) -> Iterator[Callable[[], str]]:
    """A function that waits for one key of a terminal, without Enter; of anything else, for its next letter."""
    if not stream.isatty():
        yield lambda: _letter(stream)
        return
    import termios
    import tty

    handle = stream.fileno()
    before: list[Any] = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)  # Ctrl-C still interrupts
        yield lambda: _key(handle)
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _letter(stream: TextIO) -> str:
    """The next character that is not white space; "" at the end."""
    while (letter := stream.read(1)).isspace():
        pass
    return letter


def _key(handle: int) -> str:
    """One byte, or the three of an arrow; Ctrl-D ends the input."""
    first = os.read(handle, 1)
    if first == b"\x1b":
        first += os.read(handle, 2)
    return "" if first == b"\x04" else first.decode("ascii", "replace")
