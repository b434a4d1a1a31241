"""What rows are measured with beside themselves: training's batch size, the base's tokenizer, a model, a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import UsageError
from tunesmith.core.records import Row
from tunesmith.engine.base import ChatEngine
from tunesmith.prepare.config import PrepareConfig
from tunesmith.prepare.difficulty import Scorer, difficulty
from tunesmith.prepare.finding import Finding
from tunesmith.prepare.judge import judge
from tunesmith.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Instruments:
    """`batch_size` in rows, where the user gave one. What else is None is not at hand, and its measure is NOT RUN."""

    batch_size: int | None = None
    tokenizer: Tokenizer | None = None
    scorer: Scorer | None = None
    judge: ChatEngine | None = None


@dataclass(frozen=True)
class Measured:
    """For the receipt, and findings beside those of the table of checks."""

    facts: dict[str, Any]
    findings: list[Finding]


def measure(config: PrepareConfig, rows: Sequence[Row], tools: Instruments) -> Measured:
    """What a model says of the rows, where one is asked for. Raises UsageError where it is asked for and not given."""
    if (config.difficulty and not tools.scorer) or (config.judge and not tools.judge):
        raise UsageError("difficulty and judge need a model", expected="one among the instruments")
    hard = difficulty(tools.scorer, rows) if tools.scorer else (None, [])
    judged = judge(tools.judge, rows, config.judge, config.seed) if tools.judge else (None, [])
    findings = [finding for finding in (*hard[1], *judged[1]) if finding.count]
    return Measured({"difficulty": hard[0], "judge": judged[0]}, findings)
