"""What answers cost, and the limit that no request may pass."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from lit_retrofit.errors import UserError


class LimitReached(Exception):
    """The next request could cost more than is left."""


@dataclass(frozen=True)
class Prices:
    """In any currency, per million tokens.

    Attributes:
        input: of tokens sent.
        output: of tokens written.
        limit: the most that may be spent, the answers of earlier runs in the log included; none without it.
    """

    input: float = 0.0
    output: float = 0.0
    limit: float | None = None

    def __post_init__(self) -> None:
        if min(self.input, self.output) < 0 or (self.limit is not None and self.limit < 0):
            raise UserError("prices: input, output and limit cannot be negative; give 0 or more")
        if self.limit is not None and self.input == self.output == 0:
            raise UserError(
                "prices.limit needs prices.input and prices.output, per million tokens; give both"
            )

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Of one answer, or of all."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


class Purse:
    """Counts tokens over threads. What a request can cost at most is set aside before it is sent.

    A text has at most as many tokens as UTF-8 bytes under the tokenizers in use, and an answer at most
    ``max_tokens``. The most is set aside for every sending, a repeated one too; one whose answer never came
    (a time-out) is counted at it, for the endpoint may have worked for it all the same.

    Args:
        prices: and the limit.
        input_tokens: charged for before.
        output_tokens: likewise.
    """

    # Chat templates and roles add tokens that are in no text of ours.
    _FRAME = 64

    def __init__(self, prices: Prices, input_tokens: int = 0, output_tokens: int = 0) -> None:
        self._prices, self._lock = prices, threading.Lock()
        self.input_tokens, self.output_tokens = input_tokens, output_tokens
        self._reserved = 0.0

    @property
    def spent(self) -> float:
        """The cost of all answers, and of requests that may have been charged."""
        return self._prices.cost(self.input_tokens, self.output_tokens)

    def most(self, prompt: str, max_tokens: int) -> tuple[int, int]:
        """The most input and output tokens that a request can be charged for."""
        return len(prompt.encode()) + self._FRAME, max_tokens

    def reserve(self, prompt: str, max_tokens: int) -> float:
        """Sets the most aside that a request can cost.

        Raises:
            LimitReached: it is more than is left.
        """
        amount = self._prices.cost(*self.most(prompt, max_tokens))
        with self._lock:
            limit = self._prices.limit
            if limit is not None and self.spent + self._reserved + amount > limit:
                raise LimitReached
            self._reserved += amount
        return amount

    def settle(self, reserved: float, input_tokens: int, output_tokens: int) -> None:
        """Replaces what was set aside by what was used."""
        with self._lock:
            self._reserved -= reserved
            self.input_tokens += input_tokens
            self.output_tokens += output_tokens
