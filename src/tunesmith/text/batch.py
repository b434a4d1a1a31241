"""How many rows an optimizer step takes, and how many passes are made, where nobody says.

A small set needs steps more than it needs large ones: on 100 rows of the demo batches of 4 ended 5 % below batches of
8, and 6 passes 15 % below 3 and 3 % below 12, which only learn by heart (bench/learning.py).
"""

from __future__ import annotations

import math

STEPS, EPOCHS = 400, 6  # optimizer steps that a small set needs, and passes over it at most
_SMALLEST, _LARGEST = 4, 16  # rows a step


def decide_batch(rows: int) -> int:
    """The power of two nearest to what gives `rows` their steps in so many passes, within bounds."""
    wanted = max(1.0, rows * EPOCHS / STEPS)
    return int(min(_LARGEST, max(_SMALLEST, 2 ** round(math.log2(wanted)))))


def decide_epochs(steps_an_epoch: int, slowness: int = 1) -> int:
    """As many passes as make the steps, two at least: one alone is a schedule that decays before a row comes back.

    `slowness`: how many times the usual steps and passes a way of learning needs.
    """
    return min(slowness * EPOCHS, max(2, math.ceil(slowness * STEPS / steps_an_epoch)))
