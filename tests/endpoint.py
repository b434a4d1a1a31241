"""A real HTTP server on this machine that speaks the OpenAI format and misbehaves by script. It keeps its own books.

Loaded by path from the conftest.py of the rooms that need it; it is no test itself.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[int, dict[str, Any]], str | None]  # (number of the request from 0, payload) -> a misdeed, or None
Brain = Callable[[dict[str, Any]], str | tuple[str, dict[str, float]]]  # payload -> the text of the answer, or also
# the log-probabilities of some words as its first token

ERRORS: dict[str, tuple[int, dict[str, str], dict[str, Any]]] = {  # misdeed -> status, headers, error body
    "429": (429, {"Retry-After": "2"}, {"message": "slow down", "code": "rate_limit_exceeded"}),
    "429 without": (429, {}, {"message": "slow down", "code": "rate_limit_exceeded"}),
    "429 day": (429, {"Retry-After": "86400"}, {"message": "come back tomorrow"}),
    "quota": (429, {}, {"message": "you have no money left", "code": "insufficient_quota"}),
    "500": (500, {}, {"message": "oops"}),
    "503": (503, {"Retry-After": "1"}, {"message": "overloaded"}),
    "408": (408, {}, {"message": "timeout"}),
    "409": (409, {}, {"message": "conflict"}),
    "400": (400, {}, {"message": "temperature must be below 2", "param": "temperature"}),
    "400 schema": (400, {}, {"message": "response_format json_schema is not supported"}),
    "400 seed": (400, {}, {"message": "unknown field: seed"}),
    "400 logprobs": (400, {}, {"message": "logprobs are not supported by this model"}),
    "400 limit": (400, {}, {"message": "use max_completion_tokens instead of max_tokens"}),
    "400 long": (400, {}, {"message": "maximum context length is 8", "code": "context_length_exceeded"}),
    "401": (401, {}, {"message": "wrong key: sk-SECRETSECRET"}),
    "403": (403, {}, {"message": "not yours"}),
    "404": (404, {}, {"message": "no such model"}),
    "307": (307, {"Location": "http://127.0.0.1:9/elsewhere"}, {"message": "moved"}),
}


class Endpoint:
    """The server's books: every payload in order of arrival, and the tokens of every answer that went out whole."""

    def __init__(self, brain: Brain, script: Script, seconds: float) -> None:
        self.brain, self.script, self.seconds = brain, script, seconds
        self.payloads: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.statuses: list[int] = []
        self.prompt_tokens = self.completion_tokens = self.answered = self.unanswered = 0
        self.inside = self.most_inside = 0
        self.url = ""
        self.lock = threading.Lock()

    @property
    def requests(self) -> int:
        return len(self.payloads)

    def arrived(self, payload: dict[str, Any], headers: dict[str, str]) -> int:
        with self.lock:
            self.payloads.append(payload)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            return len(self.payloads) - 1

    def left(self) -> None:
        with self.lock:
            self.inside -= 1

    def told(self, status: int, prompt: int = 0, completion: int = 0) -> None:
        with self.lock:
            self.statuses.append(status)
            self.answered += status == 200
            self.prompt_tokens += prompt
            self.completion_tokens += completion

    def lost(self) -> None:
        with self.lock:
            self.unanswered += 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: Endpoint

    def do_POST(self) -> None:
        try:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        except (ValueError, OSError):  # the client was killed while it sent
            self.close_connection = True
            return
        number = self.endpoint.arrived(payload, {k.lower(): v for k, v in self.headers.items()})
        try:
            time.sleep(self.endpoint.seconds)
            misdeed = self.endpoint.script(number, payload)
            if misdeed in ERRORS:
                status, headers, error = ERRORS[misdeed]
                self.endpoint.told(status)
                self.send(status, json.dumps({"error": error}).encode(), headers)
            else:
                self.answer(payload, misdeed)
        except OSError:  # the client has gone
            self.close_connection = True
        finally:
            self.endpoint.left()

    def answer(self, payload: dict[str, Any], misdeed: str | None) -> None:
        said = self.endpoint.brain(payload)
        text, first = said if isinstance(said, tuple) else (said, {})
        prompt = sum(len(m["content"].split()) for m in payload["messages"])
        completion = len(text.split())
        message: dict[str, Any] = {"role": "assistant", "content": text}
        finish: str | None = "stop"
        if misdeed == "length":
            message["content"], finish = text[: len(text) // 2], "length"
        elif misdeed == "content_filter":
            message["content"], finish = "", "content_filter"
        elif misdeed == "truncated":
            message["content"] = text[: len(text) // 2]
        elif misdeed == "think":
            message["content"] = f"<think>let me see {{}}</think>\n{text}"
        body: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
        if first and payload.get("logprobs"):
            top = [{"token": word, "logprob": logprob} for word, logprob in first.items()]
            body["choices"][0]["logprobs"] = {"content": [{"token": text.split()[0], "top_logprobs": top}]}
        if misdeed != "no usage":
            body["usage"] = {"prompt_tokens": prompt, "completion_tokens": completion}
        raw, headers = json.dumps(body).encode(), {}
        if misdeed == "slow":
            self.endpoint.lost()
            time.sleep(2.5)
        elif misdeed == "cut":
            self.endpoint.lost()
            self.send(200, raw[: len(raw) // 2], {}, length=len(raw))
            self.close_connection = True
            return
        elif misdeed in ("malformed", "page"):
            self.endpoint.lost()
            raw = raw[: len(raw) // 2] if misdeed == "malformed" else b"<!doctype html><p>Sign in"
            headers = {"Content-Type": "text/html"} if misdeed == "page" else {}
        elif misdeed == "no usage":
            self.endpoint.lost()
        else:
            self.endpoint.told(200, prompt, completion)
            if misdeed == "text/plain":
                headers = {"Content-Type": "text/plain"}
            elif misdeed == "spent":
                headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}
        self.send(200, raw, headers)

    def send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Errors of connections that a killed client left behind are not printed."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def serving(brain: Brain, script: Script = lambda number, payload: None, seconds: float = 0.0) -> Iterator[Endpoint]:
    """A running endpoint on a free port of 127.0.0.1."""
    endpoint = Endpoint(brain, script, seconds)
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"endpoint": endpoint}))
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
