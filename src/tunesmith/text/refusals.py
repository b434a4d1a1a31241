"""How assistants decline, in English: their set phrases."""

from __future__ import annotations

from tunesmith.text.similar import normalise

REFUSALS = (  # normalised: no apostrophes, no commas
    "as an ai language model",
    "as a large language model",
    "as an ai assistant i",
    "as an ai i ",
    "im just an ai",
    "i am an ai language model",
    "im an ai language model",
    "my knowledge cutoff",
    "my training data only",
    "i dont have personal opinions",
    "i do not have personal opinions",
    "im sorry but i cant",
    "im sorry but i cannot",
    "i am sorry but i cannot",
    "i cannot fulfill",
    "i cannot assist with",
    "i cant assist with",
    "i am unable to assist",
    "im unable to assist",
    "i cannot provide you with",
)


def refusal(text: str) -> str:
    """The first of the phrases that a text holds, or ''."""
    plain = normalise(text)
    return next((phrase for phrase in REFUSALS if phrase in plain), "")
