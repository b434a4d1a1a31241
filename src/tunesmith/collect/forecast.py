"""What a run of `generate` would take. Nothing is sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.collect.generate import GenerateConfig, connect, maker_of, material_of, wanted
from tunesmith.collect.making import LOWEST
from tunesmith.collect.recipes import RECIPES
from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import DataError
from tunesmith.engine.answers import Answers
from tunesmith.engine.budget import likely_prompt_tokens, most_tokens
from tunesmith.engine.remote import RemoteChat

ROW_TOKENS, SECONDS = 120, 5.0  # of a row and of an answer: assumed, until answers of the model were measured


def plan(config: GenerateConfig, inputs: Sequence[Artifact | Path], store: Path | None = None) -> dict[str, Any]:
    """Requests, tokens, cost and seconds as [every row is accepted, so few that it would give up].

    They are estimates, and `basis` says of what; `request_costs_at_most` is a bound. Costs are None where the model has
    no price; `stored` counts those of the first requests that were answered before. Raises what `run` would raise.
    """
    material = material_of(config, inputs)
    chat = connect(config, inputs, store) if store and store.is_file() else RemoteChat(config, Answers())
    recipe, target = RECIPES[config.recipe], wanted(config) or len(material.rows)
    maker = maker_of(config, material, chat, "plan", lambda rows: None)
    asks = maker.first(target)
    if not asks:
        raise DataError("there is nothing to ask for", expected="rows with weak answers, or their ids")
    hoped = sum(ask.expected for ask in asks)
    target = target if recipe.block else min(target, hoped)
    requests = [maker.request(ask) for ask in asks]
    measured = chat.answers.pace(config.model)
    count, seconds, completion = measured or (0, SECONDS, ROW_TOKENS * hoped / len(asks))
    prompt = sum(likely_prompt_tokens(config.model, one) for one in requests) / len(requests)
    least = math.ceil(target * len(asks) / hoped) * recipe.steps
    assumed = f"assumed: {SECONDS:g} s an answer, {ROW_TOKENS} tokens a row"
    basis = f"{count} answers of {config.model}" if measured else assumed
    ends = (least, math.ceil(least / LOWEST))
    price = chat.price
    facts = {
        "recipe": config.recipe,
        "model": config.model,
        "target": target,
        "requests": list(ends),
        "prompt_tokens": [round(n * prompt) for n in ends],
        "completion_tokens": [round(n * completion) for n in ends],
        "cost": [price.cost(round(n * prompt), round(n * completion)) for n in ends] if price else None,
        "request_costs_at_most": max(price.cost(*most_tokens(config.model, r)) for r in requests) if price else None,
        "seconds": [n * seconds / min(n, config.concurrency) for n in ends],
        "stored": sum(chat.stored(one) is not None for one in requests),
        "basis": basis,
    }
    chat.close()
    return facts
