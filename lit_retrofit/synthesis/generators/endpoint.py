"""Any endpoint that speaks OpenAI's protocol: OpenAI, vLLM, Ollama, llama.cpp's server and others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.answers import Answer, Failure, Request
from lit_retrofit.synthesis.generators.connection import EndpointOptions, Pace, find_key, make_client
from lit_retrofit.synthesis.spending import LimitReached, Purse

_HOPELESS = 8  # failed requests in a row, none answered between: the endpoint is down
_REMEDIES = {
    401: "check the key in the variable that endpoint.key_variable names",
    403: "check what the key is allowed to do",
    404: "check endpoint.url and the model's name",
}
_OTHER_REMEDY = "check the model's name, chat, endpoint.tokens_field and endpoint.seeds"


class _NotAnswered(Exception):
    """This request failed. ``charged``: the endpoint may have worked for it all the same."""

    def __init__(self, reason: str, charged: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.charged = reason, charged


class Endpoint:
    """Asks an endpoint, several requests at a time.

    Args:
        options: where and how.
        purse: counts tokens and holds the limit.

    Attributes:
        retried: how many times a request that was answered in the end had to be sent again.
    """

    def __init__(self, options: EndpointOptions, purse: Purse) -> None:
        self._options, self._purse = options, purse
        self._key = find_key(options)
        self._client = make_client(options, self._key)
        self._pace = Pace(options.requests_per_minute)
        self._answered, self._counting = False, threading.Lock()
        self.retried = 0

    def generate(
        self, requests: Sequence[Request], stopped: Callable[[], bool]
    ) -> Iterator[Answer | Failure]:
        """Yields answers as they come. Before it raises, it yields those of the requests under way.

        Raises:
            UserError: the endpoint refuses the key, the address or the model, or answers nothing at all.
            LimitReached: the next request could cost more than is left.
        """
        waiting, failed = deque(requests), 0
        fault: Exception | None = None
        under_way: set[Future[Answer | Failure]] = set()
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
                        result = future.result()
                    except UserError as error:
                        fault = fault or error
                        continue
                    failed = failed + 1 if isinstance(result, Failure) else 0
                    if isinstance(result, Failure) and failed >= max(_HOPELESS, self._options.concurrency):
                        fault = fault or self._hopeless(failed, result.reason)
                    yield result
        if fault:
            raise fault

    def _ask(self, request: Request, reserved: float, stopped: Callable[[], bool]) -> Answer | Failure:
        """Asks once, with the client's own retries; runs in a thread."""
        used = (0, 0)
        try:
            self._pace.wait(stopped)
            if stopped():
                return Failure(request.key, "stopped")
            answer = self._send(request)
            used = (answer.input_tokens, answer.output_tokens)
            self._answered = True
            return answer
        except _NotAnswered as fault:
            if fault.charged:
                used = self._purse.most(request.prompt, request.max_tokens)
            return Failure(request.key, fault.reason)
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
            create: Any = self._client.chat.completions.with_raw_response.create
        else:
            options |= {"prompt": request.prompt, "stop": request.stop}
            create = self._client.completions.with_raw_response.create
        try:
            raw = create(**options)
            answer = self._read(request, raw.parse())
        except openai.APITimeoutError:
            raise _NotAnswered("time-out", charged=True) from None
        except openai.APIStatusError as error:
            # A single text may be too long for the model; but what no request has passed is a mistake.
            if error.status_code in _REMEDIES or (error.status_code < 429 and not self._answered):
                raise self._refused(error) from None
            raise _NotAnswered(f"status {error.status_code}") from None
        except openai.APIConnectionError:
            raise _NotAnswered("no connection") from None
        except (openai.APIError, ValueError, TypeError, AttributeError, LookupError):
            raise _NotAnswered("no response of the protocol", charged=True) from None
        with self._counting:
            self.retried += raw.retries_taken
        return answer

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
        usage = response.usage
        # Some servers count nothing: then the most is taken, so that the limit holds.
        most = self._purse.most(request.prompt, request.max_tokens)
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else most
        return Answer(request.key, self._without_key(text), finish, *(int(count) for count in tokens))

    def _refused(self, error: Any) -> UserError:
        said = " ".join(self._without_key(error.message).split())
        remedy = _REMEDIES.get(error.status_code, _OTHER_REMEDY)
        return UserError(f"endpoint {self._options.host}: status {error.status_code} ({said:.200}); {remedy}")

    def _hopeless(self, failed: int, reason: str) -> UserError:
        return UserError(
            f"endpoint {self._options.host}: {failed} requests failed one after another, the last one with "
            f"'{reason}'; see that it runs, and give the same command again"
        )

    def _without_key(self, text: str) -> str:
        """Endpoints may repeat the key in what they say; nothing of that is kept."""
        return text.replace(self._key, "***") if self._key else text
