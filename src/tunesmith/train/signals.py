"""Ctrl-C and SIGTERM: the micro-batch at hand is finished and the last whole step is saved, to go on from later."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """Raised in the middle of a step or of a validation: what was begun is dropped, and no half of it is kept."""


class Stop:
    """Set by Ctrl-C or SIGTERM."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt  # a second Ctrl-C means now
        self.requested = True

    def check(self) -> None:
        if self.requested:
            raise Stopped


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a request to stop; the earlier handlers come back after."""
    stop = Stop()
    try:
        old = {s: signal.signal(s, stop.request) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
