"""Any endpoint that speaks OpenAI's protocol: OpenAI, vLLM, Ollama, llama.cpp's server and others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.answers import Answer, Failure, Lost, Request, Result
from lit_retrofit.synthesis.generators.connection import EndpointOptions, Pace, find_key, make_client
from lit_retrofit.synthesis.generators.retries import may_pass_later, rest, seconds_to_wait
from lit_retrofit.synthesis.spending import LimitReached, Purse

_HOPELESS = 8  # failed requests in a row, none answered between: the endpoint is down
_REFUSALS = 3  # requests refused before any was answered: the mistake is not in one of their texts
_REMEDIES = {
    401: "check the key in the variable that endpoint.key_variable names",
    403: "check what the key is allowed to do",
    404: "check endpoint.url and the model's name",
}
_OTHER_REMEDY = "check the model's name, chat, endpoint.tokens_field and endpoint.seeds"
# Said by a gateway: the endpoint behind it may have worked for the request all the same. 524 is Cloudflare's.
_GATEWAY = (502, 504, 524)
# A connection that was never made, by name: openai stands on httpx or on httpx2, by its version.
_NEVER_MADE = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError")


class _NotAnswered(Exception):
    """A sending that failed.

    Attributes:
        reason: in a few words.
        again: the response's headers, where the same request may be answered later; None where it will not.
        charged: the endpoint may have worked for it all the same.
        refusal: what the endpoint has against the request itself, as an error for the user.
    """

    def __init__(
        self,
        reason: str,
        again: Mapping[str, str] | None = None,
        charged: bool = False,
        refusal: UserError | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.again, self.charged, self.refusal = reason, again, charged, refusal


@dataclass(frozen=True)
class _Outcome:
    """What came of a request.

    Attributes:
        result: its answer, or why there is none; None where a signal came before it was sent, or sent again.
        lost: its sendings that may be charged for without an answer.
        sent_again: how many sendings followed the first.
        refusal: what the endpoint has against the request, as an error for the user.
    """

    result: Answer | Failure | None
    lost: Sequence[Lost]
    sent_again: int
    refusal: UserError | None = None


class Endpoint:
    """Asks an endpoint, several requests at a time.

    Args:
        options: where and how.
        purse: counts tokens and holds the limit.
        answered: it answered requests in an earlier run.

    Attributes:
        retried: how many times a request that was answered in the end had to be sent again.
    """

    def __init__(self, options: EndpointOptions, purse: Purse, answered: bool = False) -> None:
        self._options, self._purse = options, purse
        self._key = find_key(options)
        self._client = make_client(options, self._key)
        self._pace = Pace(options.requests_per_minute)
        self._answered, self._refusals, self._failed = answered, 0, 0
        self.retried = 0

    def generate(self, requests: Sequence[Request], stopped: Callable[[], bool]) -> Iterator[Result]:
        """Yields answers as they come. Before it raises, it yields those of the requests under way.

        Raises:
            UserError: the endpoint refuses the key, the address or the model, or answers nothing at all.
            LimitReached: the next request could cost more than is left.
        """
        waiting = deque(requests)
        fault: Exception | None = None
        under_way: set[Future[_Outcome]] = set()
        with ThreadPoolExecutor(self._options.concurrency) as pool:
            while True:
                while waiting and len(under_way) < self._options.concurrency and not fault and not stopped():
                    try:
                        reserved = self._purse.reserve(waiting[0].prompt, waiting[0].max_tokens)
                    except LimitReached as reached:
                        # Those under way will cost less than was set aside for them.
                        fault = None if under_way else reached
                        break
                    under_way.add(pool.submit(self._ask, waiting.popleft(), reserved, stopped))
                if not under_way:
                    break
                # A short wait at a time: signals are noticed between two of them.
                done, under_way = wait(under_way, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        outcome = future.result()
                    except UserError as error:
                        fault = fault or error
                        continue
                    yield from outcome.lost
                    if outcome.result is not None:
                        yield outcome.result
                    fault = fault or self._judge(outcome, len(requests))
        if fault:
            raise fault

    def _judge(self, outcome: _Outcome, requests: int) -> UserError | None:
        """Whether it is worth while to go on; called in one thread."""
        result = outcome.result
        if result is None:
            return None
        if isinstance(result, Answer):
            self._answered, self._failed = True, 0
            self.retried += outcome.sent_again
        elif not result.refused:
            self._failed += 1
            if self._failed >= max(_HOPELESS, self._options.concurrency):
                return self._hopeless(result.reason)
        elif not self._answered:
            self._refusals += 1
            if self._refusals >= min(_REFUSALS, requests):
                return outcome.refusal
        return None

    def _ask(self, request: Request, reserved: float, stopped: Callable[[], bool]) -> _Outcome:
        """Asks until there is an answer or no hope of one; runs in a thread.

        Args:
            request: to ask.
            reserved: in the purse, for the first sending.
            stopped: no further sending then.
        """
        lost: list[Lost] = []
        attempt = 0
        while True:
            try:
                return _Outcome(self._send_once(request, reserved, stopped), lost, attempt)
            except _NotAnswered as fault:
                if fault.charged:
                    lost.append(Lost(request.key, *self._purse.most(request.prompt, request.max_tokens)))
                failure = Failure(request.key, fault.reason, fault.refusal is not None)
                outcome = _Outcome(failure, lost, attempt, fault.refusal)
                if fault.again is None or attempt == self._options.retries:
                    return outcome
                rest(seconds_to_wait(attempt, fault.again), stopped)
            try:
                reserved = self._purse.reserve(request.prompt, request.max_tokens)
            except LimitReached:
                return outcome
            attempt += 1

    def _send_once(self, request: Request, reserved: float, stopped: Callable[[], bool]) -> Answer | None:
        """The answer; None where a signal came before the request could be sent."""
        used = (0, 0)
        try:
            self._pace.wait(stopped)
            if stopped():
                return None
            answer = self._send(request)
            used = (answer.input_tokens, answer.output_tokens)
            return answer
        except _NotAnswered as fault:
            if fault.charged:
                used = self._purse.most(request.prompt, request.max_tokens)
            raise
        finally:
            self._purse.settle(reserved, *used)

    def _send(self, request: Request) -> Answer:
        import openai

        options: dict[str, Any] = {
            "model": request.model,
            "temperature": request.temperature,
            self._options.tokens_field: request.max_tokens,
        }
        if self._options.seeds:
            options["seed"] = request.seed
        if request.chat:
            options["messages"] = [{"role": "user", "content": request.prompt}]
            create: Any = self._client.chat.completions.create
        else:
            options |= {"prompt": request.prompt, "stop": request.stop}
            create = self._client.completions.create
        try:
            return self._read(request, create(**options))
        except openai.APITimeoutError as error:
            raise _NotAnswered("time-out", again={}, charged=_was_sent(error)) from None
        except openai.APIStatusError as error:
            raise self._by_status(error) from None
        except openai.APIConnectionError as error:
            charged = _was_sent(error)
            reason = "broken connection" if charged else "no connection"
            raise _NotAnswered(reason, again={}, charged=charged) from None
        except (openai.APIError, ValueError, TypeError, AttributeError, LookupError):
            raise _NotAnswered("no response of the protocol", charged=True) from None

    def _by_status(self, error: Any) -> Exception:
        """What a status of 4xx or 5xx means: for this sending, this request, or all of them."""
        status, headers = error.status_code, error.response.headers
        again = headers if may_pass_later(status, headers) else None
        if again is not None or status >= 500:
            return _NotAnswered(f"status {status}", again, charged=status in _GATEWAY)
        refusal = self._refused(error)
        if status in _REMEDIES and not (status == 403 and self._answered):  # 403: moderation of one text, too
            return refusal
        return _NotAnswered(f"status {status}", refusal=refusal)

    def _read(self, request: Request, response: Any) -> Answer:
        """The answer in a response; what is no response of the protocol raises as it may."""
        choice = response.choices[0]
        finish = choice.finish_reason or "stop"
        if request.chat:
            text = choice.message.content or ""
            if refusal := getattr(choice.message, "refusal", None):
                text, finish = refusal, "refusal"
        else:
            text = choice.text or ""
        # Some servers count nothing, or only one of both: then the most is taken, so that the limit holds.
        most = self._purse.most(request.prompt, request.max_tokens)
        counted = [getattr(response.usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        tokens = [count if isinstance(count, int) else top for count, top in zip(counted, most, strict=True)]
        return Answer(request.key, self._without_key(text), finish, *tokens)

    def _refused(self, error: Any) -> UserError:
        said = " ".join(self._without_key(error.message).split())
        remedy = _REMEDIES.get(error.status_code, _OTHER_REMEDY)
        return UserError(f"endpoint {self._options.host}: status {error.status_code} ({said:.200}); {remedy}")

    def _hopeless(self, reason: str) -> UserError:
        return UserError(
            f"endpoint {self._options.host}: {self._failed} requests failed one after another, the last one "
            f"with '{reason}'; see that it runs, and give the same command again"
        )

    def _without_key(self, text: str) -> str:
        """Endpoints may repeat the key in what they say; nothing of that is kept."""
        return text.replace(self._key, "***") if self._key else text


def _was_sent(error: Exception) -> bool:
    """Whether the endpoint may have got the request, and so may charge for it."""
    return type(error.__cause__).__name__ not in _NEVER_MADE
