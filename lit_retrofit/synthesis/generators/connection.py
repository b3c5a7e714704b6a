"""How an endpoint is reached: its options, its key, its client, and the pace of requests."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.generators.retries import rest

if TYPE_CHECKING:
    from openai import OpenAI

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class EndpointOptions:
    """Where the model is and how it is asked.

    Attributes:
        url: the address before /chat/completions, for instance http://localhost:11434/v1 (Ollama).
        key_variable: the environment variable that holds the key; OPENAI_API_KEY for OpenAI's own address,
            none for others. The key itself is never an option, so that no shell history has it.
        concurrency: requests at a time.
        requests_per_minute: no more than this; unlimited without it.
        timeout: seconds to wait for an answer.
        retries: of one request after a time-out, a broken connection or a status of 408, 409, 429 or 5xx.
            The waits between them double, or are as long as the endpoint's Retry-After says. Each counts as
            a request, in requests_per_minute and for the spending limit.
        tokens_field: what the endpoint calls the longest answer; OpenAI's reasoning models want the other.
        seeds: send seeds; false for endpoints that refuse the field.
    """

    url: str = OPENAI
    key_variable: str | None = None
    concurrency: int = 8
    requests_per_minute: int | None = None
    timeout: float = 120.0
    retries: int = 6
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    seeds: bool = True

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError("endpoint.url is no address; write one such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise UserError(
                "endpoint.url holds a user, a password or a query, which would end up in logs; put the "
                "key into an environment variable and name that with endpoint.key_variable"
            )
        if self.key_variable is not None and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            raise UserError(
                "endpoint.key_variable is no name of an environment variable; name the one that holds the "
                "key, never the key itself"
            )
        for name in ("concurrency", "requests_per_minute", "timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"endpoint.{name} is {value}; give a number above 0")
        if self.retries < 0:
            raise UserError(f"endpoint.retries is {self.retries}; give 0 or more")

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.url).netloc


class Pace:
    """Spreads requests evenly over a minute.

    Args:
        per_minute: how many may begin; any number without it.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Sleeps until the next request may go, or ``stopped()``."""
        if not self._gap:
            return
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._gap
        rest(start - time.monotonic(), stopped)


def find_key(options: EndpointOptions) -> str | None:
    """The key out of the environment, or None where the endpoint takes none.

    Raises:
        UserError: the variable is not set.
    """
    variable, named = options.key_variable, "that endpoint.key_variable names"  # it may be a key by mistake
    if variable is None:
        if urlsplit(options.url).hostname != urlsplit(OPENAI).hostname:
            return None  # OpenAI's key is not for others to see
        variable = named = "OPENAI_API_KEY"
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {named} is not set; put the endpoint's key into it")
    return key


def make_client(options: EndpointOptions, key: str | None) -> OpenAI:
    """The client that does the connecting. It repeats nothing: only we know the pace and the spending limit.

    Raises:
        UserError: the package openai is not installed.
    """
    try:
        from openai import OpenAI
    except ModuleNotFoundError:
        raise UserError(
            "the endpoint generator needs the package openai: pip install 'lit-retrofit[synthesis]'"
        ) from None
    return OpenAI(base_url=options.url, api_key=key or "none", timeout=options.timeout, max_retries=0)
