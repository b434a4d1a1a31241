"""Where an endpoint is, how much may be asked of it, and what to type when it refuses. Nothing here sends anything."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field

from tunesmith.core.config import Config
from tunesmith.core.errors import RemoteError, UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
AGAIN = "then run the same command again: what was answered is kept"


class EndpointConfig(Config):
    """Where an OpenAI-compatible endpoint is, and what may be asked of it."""

    base_url: str | None = None
    """the endpoint, as in "http://127.0.0.1:8000/v1"; nothing is sent anywhere else; None for a local model"""
    model: str = ""
    """the model's name, as the endpoint knows it"""
    key_env: str = "OPENAI_API_KEY"
    """the NAME of the environment variable that holds the key, never the key itself; unset: none is sent"""
    concurrency: int = Field(default=32, ge=1)
    """the most requests at once; fewer while the endpoint complains"""
    timeout: float = Field(default=300.0, gt=0)
    """seconds until an answer must be there, whole"""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """the endpoint's limit, where it has one; None to find out"""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """the endpoint's limit, where it has one; None to find out"""
    max_requests: int | None = Field(default=None, ge=0)
    """stop before more requests than this, over all reruns; None for no limit"""
    max_cost: float | None = Field(default=None, ge=0)
    """stop before this is passed, over all reruns, in the currency of prices; None for no limit"""
    prices: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """what a million tokens cost, in and out, by model, as in {"small-model" = [0.15, 0.60]}"""


def check_endpoint(config: EndpointConfig) -> str:
    """The base URL without its last slash. Raises UsageError, never quoting what may be a secret."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", config.key_env):
        fix = 'key_env = "OPENAI_API_KEY", and in the shell: export OPENAI_API_KEY=...'
        raise UsageError("key_env is not the name of an environment variable", expected="a name, not the key", fix=fix)
    if not config.base_url or not config.model:
        fix = 'base_url = "http://127.0.0.1:8000/v1" and model = "..." in tunesmith.toml'
        raise UsageError("no endpoint is set", expected="base_url and model", fix=fix)
    parts = urlsplit(config.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("base_url is not an address", expected="such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        what = "base_url holds more than an address"
        raise UsageError(what, expected="no password and no query: a key belongs into key_env's variable")
    return config.base_url.rstrip("/").removesuffix("/chat/completions")


def redact(text: str, key: str) -> str:
    """A text without the key: endpoints quote keys in their errors, whole or in part."""
    bare = text.replace(key, "***") if key else text
    return re.sub(r"\b(sk|pk|key)-[\w*.-]{6,}", "***", bare)


def refusal(config: EndpointConfig, base: str, status: int, said: str) -> RemoteError:
    """The error for a status that no other try will mend, with what to type next."""
    fixes = {
        400: "the request is wrong for this endpoint: check model, temperature and max_tokens",
        401: f"export {config.key_env}=..., a key that {base} takes; {AGAIN}",
        402: f"add credit to the account; {AGAIN}",
        403: f"the key in {config.key_env} may not use {config.model}: take another key or model",
        404: f"check base_url (most end in /v1) and model = {config.model!r}",
        429: f"add credit to the account; {AGAIN}",
    }
    return RemoteError(f"{base} refused: {status} {said}", fix=fixes.get(status, "check base_url and model"))
