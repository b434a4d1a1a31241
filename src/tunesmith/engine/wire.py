"""The OpenAI wire format: what is sent, what an answer means, and which failures deserve a new try. Pure functions."""

from __future__ import annotations

import email.utils
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tunesmith.engine.base import ChatRequest, Reply

Verdict = Literal["ok", "again", "refused", "fatal"]
AGAIN = frozenset({408, 409, 429})  # and every 5xx: another try may do; anything else would fail the same way again
STOPS = {"eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
TOP = 20  # log-probabilities that are asked for: what most endpoints give at most
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached")
# A 4xx that is about these messages alone: the next request may well be answered.
_REFUSED = re.compile(
    r"context[_ ]length|maximum context|context window|too (?:long|large|many tokens)|"
    r"content[_ ](?:filter|policy|management)|moderation",
    re.IGNORECASE,
)
_THOUGHT = re.compile(r"\A\s*(?:<think>)?(.*?)</think>\s*", re.DOTALL)
_UNFINISHED = re.compile(r"\A\s*<think>(.*)\Z", re.DOTALL)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Manners:
    """What an endpoint takes. It starts with what the format knows best, and `adapted` gives up what is refused."""

    schema: Literal["json_schema", "json_object", "none"] = "json_schema"
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    seed: bool = True
    logprobs: bool = True


def canonical(model: str, request: ChatRequest) -> str:
    """The request as one JSON text, whatever the endpoint and its manners: what an answer is the answer to."""
    s = request.sampling
    asked: dict[str, Any] = {
        "model": model,
        "messages": [m.to_json() for m in request.messages],
        "temperature": s.temperature,
        "top_p": s.top_p,
        "max_tokens": s.max_new_tokens,
        "stop": list(s.stop),
        "seed": s.seed,
        "sample": request.sample,
        "schema": request.schema,
    }
    asked |= {"choices": list(request.choices)} if request.choices else {}  # without: what was asked before stays
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))


def key(model: str, request: ChatRequest) -> str:
    return hashlib.sha256(canonical(model, request).encode()).hexdigest()


def seed(request: ChatRequest) -> int:
    """A seed of its own for every sample."""
    return (request.sampling.seed * 1_000_003 + request.sample) % 2**31


def payload(model: str, request: ChatRequest, manners: Manners) -> bytes:
    """The body of a request. ASCII: half a character in a text is an escape, and not an error."""
    s = request.sampling
    body: dict[str, Any] = {"model": model, "messages": [m.to_json() for m in request.messages]}
    body |= {"temperature": s.temperature, manners.limit: s.max_new_tokens}
    body |= {"top_p": s.top_p} if s.top_p != 1 else {}
    body |= {"stop": list(s.stop)} if s.stop else {}
    body |= {"seed": seed(request)} if manners.seed else {}
    body |= {"logprobs": True, "top_logprobs": TOP} if manners.logprobs and request.choices else {}
    if request.schema is not None and manners.schema == "json_schema":
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.schema is not None and manners.schema == "json_object":
        body["response_format"] = {"type": "json_object"}
    return json.dumps(body).encode("ascii")


def adapted(manners: Manners, complaint: str) -> Manners | None:
    """The manners without what a complaint (status 400 or 422) is about; None where it is about something else."""
    said = complaint.lower()
    if manners.schema != "none" and re.search("response_format|json_schema|json_object|guided|structured", said):
        return replace(manners, schema="json_object" if manners.schema == "json_schema" else "none")
    if manners.limit == "max_tokens" and "max_completion_tokens" in said:
        return replace(manners, limit="max_completion_tokens")
    if manners.logprobs and "logprobs" in said:
        return replace(manners, logprobs=False)
    return replace(manners, seed=False) if manners.seed and re.search(r"\bseed\b", said) else None


def complaint(body: bytes) -> tuple[str, str]:
    """(code, all that an error body says). A body in another form is its own text."""
    text = " ".join(body[:2000].decode("utf-8", "replace").split())
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", text[:300]
    if not isinstance(error, dict):
        return "", str(error)[:300]
    parts = [str(error[name]) for name in ("message", "code", "type", "param") if error.get(name)]
    return str(error.get("code") or error.get("type") or ""), " | ".join(parts)[:300]


def verdict(status: int, code: str, said: str) -> Verdict:
    """ok, again (wait, then the same), refused (these messages will never be answered), or fatal (nothing will be)."""
    if status == 200:
        return "ok"
    if code in NO_MONEY:
        return "fatal"
    if status in AGAIN or 500 <= status < 600:
        return "again"
    return "refused" if status in (400, 413, 422) and _REFUSED.search(f"{code} {said}") else "fatal"


def read_reply(body: bytes, limit: int, choices: Sequence[str] = ()) -> Reply:
    """The reply in a whole answer. Raises ValueError where it is not one: not JSON, or without a message.

    An endpoint that does not say why it stopped is taken to have been cut where `limit` tokens were used.
    """
    try:
        obj = json.loads(body)
        choice = obj["choices"][0]
        message = choice["message"]
        reasoning, text = split_thinking(str(message.get("content") or ""))
        refusal = message.get("refusal")
        thought = str(message.get("reasoning_content") or message.get("reasoning") or reasoning)
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("an answer without a message") from error
    prompt, completion = usage(obj)
    if finish is None:
        finish = "length" if completion is not None and completion >= limit else "stop"
    finish = "refusal" if refusal else STOPS.get(finish, str(finish))
    return Reply(text or str(refusal or ""), finish, thought, prompt, completion, _choices(choice, choices))


def _choices(choice: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, float]:
    """The log-probability of each wanted word as the first of the answer: of all tokens that are it but for spaces.

    Empty where the endpoint tells none, or in a form that is not known.
    """
    found: dict[str, float] = {}
    try:
        tokens = choice["logprobs"]["content"] if wanted else []
        first = [token["top_logprobs"] for token in tokens if token["token"].strip()][:1]
        for entry in first[0] if first else ():
            word, share = entry["token"].strip(), math.exp(entry["logprob"])
            if word in wanted and 0 < share < math.inf:
                found[word] = found.get(word, 0.0) + share
    except (KeyError, TypeError, AttributeError, OverflowError):
        return {}
    return {word: math.log(share) for word, share in found.items()}


def usage(obj: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(prompt tokens, completion tokens) as the endpoint counted them; (None, None) where it did not."""
    found = obj.get("usage")
    counts = [found.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(found, dict) else []
    prompt, completion = counts if len(counts) == 2 and all(type(n) is int and n >= 0 for n in counts) else (None, None)
    return prompt, completion


def split_thinking(text: str) -> tuple[str, str]:
    """(what was thought aloud, the answer). Some templates open the thought in the prompt, so only its end is here."""
    if match := _THOUGHT.match(text):
        return match[1].strip(), text[match.end() :]
    if match := _UNFINISHED.match(text):
        return match[1].strip(), ""
    return "", text


def asked_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that an endpoint asks to wait for (`now`: seconds since the epoch), None where it asks for nothing.

    Retry-After in seconds or as a date (RFC 9110); else the reset of a limit of which nothing remains.
    """
    if (after := headers.get("retry-after")) is not None:
        try:
            return max(0.0, float(after))
        except ValueError:
            date = email.utils.parsedate_tz(after)
            return max(0.0, email.utils.mktime_tz(date) - now) if date else None
    waits = [
        _duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _duration(text: str) -> float | None:
    """Seconds of "20ms", "6m0s" or "1.5"."""
    try:
        return max(0.0, float(text))
    except ValueError:
        parts = _DURATION.findall(text)
        return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None
