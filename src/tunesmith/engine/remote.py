"""Any OpenAI-compatible endpoint as a `ChatEngine`: nothing is paid for twice, and no cap is ever passed.

Every answer is committed to `Answers` before it is used, so a run that was stopped, even by kill -9, goes on where it
was. What was on its way at that moment may be asked again; what was answered and stored is never asked again.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from tunesmith.core.errors import RemoteError, TunesmithError
from tunesmith.engine import wire
from tunesmith.engine.answers import LOST, Answers, Caps, Closed
from tunesmith.engine.base import ChatRequest, Reply
from tunesmith.engine.budget import facts, likely_prompt_tokens, most_tokens, price_of
from tunesmith.engine.endpoint import LOOPBACK, EndpointConfig, check_endpoint, redact, refusal
from tunesmith.engine.pace import Clock, Pace, WallClock

ATTEMPTS = 8  # of one request, while others are answered; with the waits below, two minutes of trying
BROKEN = 3  # answers in a row that are none, such as a page of a proxy
BASE, LONGEST = 0.5, 60.0  # seconds: full jitter, uniform in 0 .. min(LONGEST, BASE * 2^attempt) (Brooker 2015)
PATIENCE = 900.0  # seconds; an endpoint that asks for a longer wait is left for today
CONNECT = 10.0  # seconds
LARGEST = 1 << 25  # bytes of an answer that are read


class CapReached(RemoteError):
    """The next request could pass a cap: it was not sent. What was answered is stored."""


@dataclass(order=True)
class _Try:
    """A request that waits for its next attempt. `answered`: how many the client had when it was first sent."""

    at: float
    place: int
    key: str = field(compare=False)
    request: ChatRequest = field(compare=False)
    attempts: int = field(default=0, compare=False)
    broken: int = field(default=0, compare=False)
    answered: int = field(default=0, compare=False)


class RemoteChat:
    """`engine.base.ChatEngine` over HTTP. `job` names what the requests are for: caps and ledger are kept by job."""

    def __init__(
        self,
        config: EndpointConfig,
        answers: Answers,
        job: str = "",
        clock: Clock | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        """Raises UsageError for settings that cannot work. Nothing is sent."""
        self.config, self.answers, self.job = config, answers, job
        self.name = config.model
        self.price = price_of(config.model, config.prices, config.max_cost)
        self._base = check_endpoint(config)
        self._key = os.environ.get(config.key_env, "")
        self._clock, self._jitter = clock or WallClock(), jitter or random.Random()
        self._pace = Pace(config.concurrency, config.requests_per_minute, config.tokens_per_minute)
        self._manners = wire.Manners()
        self._caps = Caps(config.max_requests, config.max_cost)
        self._answered = 0
        self._failed: dict[str, Reply] = {}  # given up on, in this process: not stored, so a rerun asks again

    def stored(self, request: ChatRequest) -> Reply | None:
        key = wire.key(self.name, request)
        return self.answers.get(key) or self._failed.get(key)

    def seconds(self, request: ChatRequest) -> float | None:
        """How long the endpoint took over a stored reply, connecting included."""
        return self.answers.seconds(wire.key(self.name, request))

    def close(self) -> None:
        self.answers.close()

    def spent(self) -> dict[str, Any]:
        return facts(self.answers.ledger(self.job), self.price)

    def chat(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        """One reply a request, in order; what is stored is not asked again, and equal requests are asked once.

        Raises RemoteError (exit code 6) when the endpoint cannot answer, and CapReached before a cap is passed; all
        that was answered until then is stored.
        """
        todo = {wire.key(self.name, request): request for request in requests if self.stored(request) is None}
        if todo:
            _run(self._serve(todo))
        replies = [self.stored(request) for request in requests]
        return [reply for reply in replies if reply is not None]

    async def _serve(self, todo: dict[str, ChatRequest]) -> None:
        now = self._clock.now()
        waiting = [_Try(now, place, key, request) for place, (key, request) in enumerate(todo.items())]
        flying: set[asyncio.Task[_Try | None]] = set()
        async with self._client() as client:
            try:
                while waiting or flying:
                    wait = self._launch(client, waiting, flying)
                    for task in await self._landed(flying, wait):
                        flying.discard(task)
                        if (again := task.result()) is not None:
                            heapq.heappush(waiting, again)
            except TunesmithError:
                await asyncio.gather(*flying, return_exceptions=True)  # they may be paid for: take their answers
                raise

    def _client(self) -> httpx.AsyncClient:
        """No redirects: messages and key go where the config says. A proxy is not asked about this machine itself."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {self._key}"} if self._key else {})
        local = urlsplit(self._base).hostname in LOOPBACK
        limits = httpx.Limits(max_connections=self.config.concurrency)
        timeout = httpx.Timeout(self.config.timeout, connect=min(CONNECT, self.config.timeout))
        return httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits, trust_env=not local)

    def _launch(
        self, client: httpx.AsyncClient, waiting: list[_Try], flying: set[asyncio.Task[_Try | None]]
    ) -> float | None:
        """Send what may be sent now. Seconds until more may be; None: when one has come back."""
        while waiting:
            now = self._clock.now()
            if (delay := max(waiting[0].at - now, self._pace.delay(now))) > 0:
                return delay
            if len(flying) >= int(self._pace.limit):
                return None
            number = self._enter(waiting[0])
            if number is None and flying:
                return None  # they may turn out to cost less than they could
            if number is None:
                raise self._cap()
            flying.add(asyncio.create_task(self._attempt(client, heapq.heappop(waiting), number)))
        return None

    def _enter(self, item: _Try) -> int | None:
        """Write a request into the ledger; None where it could pass a cap."""
        prompt, completion = most_tokens(self.name, item.request)
        most = self.price.cost(prompt, completion) if self.price else None
        number = self.answers.open_request(self.job, item.key, self.name, most, self._caps)
        if number is not None:
            self._pace.sent(self._clock.now(), self._share(item.request))
            item.answered = item.answered if item.attempts else self._answered
            item.attempts += 1
        return number

    def _share(self, request: ChatRequest) -> int:
        """The tokens that endpoints count against a minute's share when a request arrives."""
        return likely_prompt_tokens(self.name, request) + request.sampling.max_new_tokens

    async def _landed(
        self, flying: set[asyncio.Task[_Try | None]], wait: float | None
    ) -> Iterable[asyncio.Task[_Try | None]]:
        """Wait for a request to come back, at most so long."""
        timer = asyncio.create_task(self._clock.sleep(wait)) if wait is not None else None
        done, _ = await asyncio.wait({*flying, *([timer] if timer else [])}, return_when=asyncio.FIRST_COMPLETED)
        if timer is not None:
            timer.cancel()
        return [task for task in done if task in flying]

    async def _attempt(self, client: httpx.AsyncClient, item: _Try, number: int) -> _Try | None:
        """Send once. None when it is settled, or the item with the time of its next attempt."""
        manners, started, begun = self._manners, self._clock.now(), time.monotonic()
        close = functools.partial(self.answers.close_request, number)
        body = wire.payload(self.name, item.request, manners)
        try:
            async with asyncio.timeout(self.config.timeout):
                response, content = await _post(client, f"{self._base}/chat/completions", body)
        except (httpx.RequestError, TimeoutError) as error:
            return self._lost(item, error, started, number)
        seconds = time.monotonic() - begun
        code, said = ("", "") if response.status_code == 200 else wire.complaint(content)
        match wire.verdict(response.status_code, code, said):
            case "ok":
                self._slow_down(response)
                return self._take(item, content, seconds, close)
            case "refused":
                reply = Reply("", "refused", prompt_tokens=0, completion_tokens=0)
                close(self._nothing(response, seconds), self._answer(item, reply))
                return None
            case "again":
                close(self._nothing(response, seconds))
                return self._hold(item, response, started, self._redact(said))
            case "fatal":
                close(self._nothing(response, seconds))
                return self._adapt(item, manners, response, self._redact(said))

    def _lost(self, item: _Try, error: Exception, started: float, number: int) -> _Try | None:
        """No whole answer came. Where not even a connection did, nothing was asked."""
        never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        if never_sent:
            self.answers.forget_request(number)
        else:
            self.answers.close_request(number, Closed(LOST, self._clock.now() - started))
        slow = isinstance(error, TimeoutError | httpx.TimeoutException)
        if slow:
            self._pace.overloaded(self._clock.now(), started)
        what = f"no answer in {self.config.timeout:g} s" if slow else f"{type(error).__name__}: {error}"
        return self._again(item, self._redact(what), last=never_sent and not self._answered)

    def _take(self, item: _Try, content: bytes, seconds: float, close: Callable[..., None]) -> _Try | None:
        """A whole answer, stored with what it cost; or one that is none, and is asked for again."""
        try:
            request = item.request
            reply = wire.read_reply(content, request.sampling.max_new_tokens, request.choices)
        except ValueError:
            close(Closed(LOST, seconds))
            start = self._redact(" ".join(content[:80].decode("utf-8", "replace").split()))
            item.broken += 1
            return self._again(item, f"an answer that is not one: {start!r}", last=item.broken == BROKEN)
        prompt, completion = reply.prompt_tokens, reply.completion_tokens
        known = prompt is not None and completion is not None
        cost = self.price.cost(prompt or 0, completion or 0) if self.price and known else None
        close(Closed(200, seconds, prompt, completion, cost), self._answer(item, reply))
        self._answered += 1
        self._pace.went_well()
        if known:
            self._pace.used(self._share(item.request), (prompt or 0) + (completion or 0))
        return None

    def _answer(self, item: _Try, reply: Reply) -> tuple[str, str, Reply]:
        return item.key, wire.canonical(self.name, item.request), reply

    def _nothing(self, response: httpx.Response, seconds: float) -> Closed:
        """An error costs nothing."""
        return Closed(response.status_code, seconds, 0, 0, 0.0 if self.price else None)

    def _slow_down(self, response: httpx.Response) -> float | None:
        """Hold all requests back as long as the endpoint asks; the seconds, None where it asks for nothing."""
        wait = wire.asked_wait(response.headers, time.time())
        if wait is not None and wait <= PATIENCE:
            self._pace.hold(self._clock.now() + wait)
        return wait

    def _hold(self, item: _Try, response: httpx.Response, started: float, said: str) -> _Try | None:
        """Too fast, or out of order for a while: slow down, and wait as long as is asked."""
        if response.status_code in (429, 503):
            self._pace.overloaded(self._clock.now(), started)
        if response.status_code == 429 and self._answered > item.answered:  # only its turn has not come: no failure
            item.attempts, item.answered = 1, self._answered
        wait = self._slow_down(response)
        if wait is not None and wait > PATIENCE:
            what = f"{self._base} asks to wait {wait:,.0f} s: {said}"
            raise RemoteError(what, fix="run the same command again then: what was answered is kept")
        return self._again(item, f"{response.status_code} {said}", after=wait or 0.0)

    def _again(self, item: _Try, what: str, *, last: bool = False, after: float = 0.0) -> _Try | None:
        """The next attempt, after a backoff with full jitter. After the last one this request is given up; where none
        was answered since its first, the endpoint is."""
        if item.attempts < ATTEMPTS and not last:
            backoff = self._jitter.uniform(0, min(LONGEST, BASE * 2**item.attempts))
            item.at = self._clock.now() + max(after, backoff)
            return item
        if self._answered > item.answered:
            self._failed[item.key] = Reply("", "failed", prompt_tokens=0, completion_tokens=0)
            return None
        times = f" {item.attempts} times in a row" if item.attempts > 1 else ""
        fix = f"is it running, and is base_url = {self._base} right? Then run the same command again: answers are kept"
        raise RemoteError(f"{self._base} failed{times}: {what}", fix=fix)

    def _adapt(self, item: _Try, manners: wire.Manners, response: httpx.Response, said: str) -> _Try | None:
        """Ask in a simpler way where the endpoint does not know the one we took; else this is the end."""
        if response.is_redirect:
            said = f"it sends us on to {self._redact(response.headers.get('location', ''))}"
        if response.status_code in (400, 422) and (simpler := wire.adapted(manners, said)) is not None:
            if self._manners == manners:
                self._manners = simpler
            item.attempts -= 1
            item.at = self._clock.now()
            return item
        raise refusal(self.config, self._base, response.status_code, said)

    def _cap(self) -> CapReached:
        """Which cap it is, what was spent, and how to go on."""
        spent, caps = self.answers.ledger(self.job), self._caps
        if caps.max_requests is not None and spent.requests + 1 > caps.max_requests:
            return CapReached(f"max_requests = {caps.max_requests} is reached", fix="raise it and run the same again")
        sure = f"{spent.cost or 0.0:.6f} spent"
        lost = (
            f", and up to {spent.unmeasured_cost:.6f} for {spent.unmeasured} lost requests" if spent.unmeasured else ""
        )
        what = f"the next request could pass max_cost = {caps.max_cost:g}: {sure}{lost}"
        return CapReached(what, fix="raise max_cost and run the same again: it pays nothing twice")

    def _redact(self, text: str) -> str:
        return redact(text, self._key)


async def _post(client: httpx.AsyncClient, url: str, body: bytes) -> tuple[httpx.Response, bytes]:
    """The response and its body, of which at most LARGEST bytes are read."""
    async with client.stream("POST", url, content=body) as response:
        content = bytearray()
        async for part in response.aiter_bytes():
            content += part
            if len(content) > LARGEST:
                break
        return response, bytes(content)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; in a thread of its own where a loop runs already, as in a notebook."""
    if not _in_loop():
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
