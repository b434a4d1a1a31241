"""What a request can cost at most, known before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import UsageError
from tunesmith.engine.answers import Ledger
from tunesmith.engine.base import ChatRequest
from tunesmith.engine.wire import Manners, payload

TEMPLATE = 256  # tokens that an endpoint's own template may put around the messages
BYTES = 4  # of English text a token, for forecasts only


@dataclass(frozen=True)
class Price:
    """Of a million tokens, in one currency; the cost of tokens that are not known is not known."""

    prompt: float
    completion: float

    def cost(self, prompt: int, completion: int) -> float:
        return (prompt * self.prompt + completion * self.completion) / 1e6


def price_of(model: str, prices: Mapping[str, tuple[float, float]], max_cost: float | None) -> Price | None:
    """The model's row of the price table. Raises UsageError where a cap on the cost has no price to go by."""
    if model in prices:
        return Price(*prices[model])
    if max_cost is not None:
        fix = f'prices = {{ "{model}" = [0.15, 0.60] }} in tunesmith.toml, for a million tokens in and out'
        raise UsageError(f"max_cost is set, and {model} has no price", fix=fix)
    return None


def most_tokens(model: str, request: ChatRequest) -> tuple[int, int]:
    """(prompt, completion) that a request can use at most. A token is a byte at least, in every tokenizer there is.

    It is an upper bound while the endpoint keeps to max_tokens and puts no long system message of its own before ours.
    """
    return len(_body(model, request)) + TEMPLATE, request.sampling.max_new_tokens


def likely_prompt_tokens(model: str, request: ChatRequest) -> int:
    """An estimate, for forecasts and for the tokens a minute."""
    return len(_body(model, request)) // BYTES


def _body(model: str, request: ChatRequest) -> bytes:
    return payload(model, request, Manners())


def facts(ledger: Ledger, price: Price | None) -> dict[str, Any]:
    """A ledger for a receipt; a cost only where there is a price."""
    cost = None if price is None else ledger.cost or 0.0
    return {
        "requests": ledger.requests,
        "answered": ledger.answered,
        "unmeasured": ledger.unmeasured,
        "prompt_tokens": ledger.prompt_tokens,
        "completion_tokens": ledger.completion_tokens,
        "cost": cost,
        "unmeasured_cost_at_most": None if price is None else ledger.unmeasured_cost,
    }
