"""How fast an endpoint may be asked: as many requests at once as it bears, and no more a minute than is allowed."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

START = 4.0  # requests at once before anything is known


class Clock(Protocol):
    """Time in seconds. Tests bring one that runs faster."""

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class WallClock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Pace:
    """Additive increase, multiplicative decrease (Chiu and Jain 1989), after doubling from a slow start.

    `limit`: requests at once, at most `most`. What an endpoint asks to wait for holds back all requests, not one.
    """

    def __init__(self, most: int, per_minute: int | None = None, tokens_per_minute: int | None = None) -> None:
        self.most, self.per_minute, self.tokens_per_minute = most, per_minute, tokens_per_minute
        self.limit = min(START, most)
        self._cut_at: float | None = None
        self._next = self._resume = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds until the next request may go."""
        return max(0.0, self._next - now, self._resume - now)

    def sent(self, now: float, tokens: int) -> None:
        """A request goes, of at most so many tokens: the next may follow when the minute's shares allow it."""
        shares = [60 / self.per_minute] if self.per_minute else []
        shares += [60 * tokens / self.tokens_per_minute] if self.tokens_per_minute else []
        self._next = max(now, self._next) + max(shares, default=0.0)

    def used(self, reserved: int, tokens: int) -> None:
        """Of the tokens that were reserved, only so many were used."""
        if self.tokens_per_minute and not self.per_minute:
            self._next -= 60 * max(0, reserved - tokens) / self.tokens_per_minute

    def went_well(self) -> None:
        self.limit = min(self.most, self.limit + (1 if self._cut_at is None else 1 / self.limit))

    def overloaded(self, now: float, started: float) -> None:
        """Halve; once for all the requests that were on their way together."""
        if self._cut_at is None or started > self._cut_at:
            self.limit, self._cut_at = max(1.0, self.limit / 2), now

    def hold(self, until: float) -> None:
        self._resume = max(self._resume, until)
