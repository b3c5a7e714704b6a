"""From texts to token ids: the prompt of the role, then the role's length limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Role = Literal["query", "document"]


@dataclass(frozen=True)
class RoleTokenizer:
    """Tokenizes queries and documents, in training, mining, evaluation and export alike.

    Attributes:
        backend: the model's tokenizer.
        prompts: text put before every query and every document.
        max_lengths: tokens kept per role, prompt and special tokens included.
    """

    backend: PreTrainedTokenizerBase
    prompts: Mapping[Role, str]
    max_lengths: Mapping[Role, int]

    @property
    def pad_id(self) -> int:
        """The id that fills a row up to the length of its micro-batch."""
        return self.backend.pad_token_id

    def __call__(
        self, texts: Sequence[str], role: Role, max_length: int | None = None, prompt: str | None = None
    ) -> list[list[int]]:
        """Token ids of each text, special tokens included, not padded, cut to the role's or this length.

        The prompt, where one is given, takes the place of the role's.
        """
        prompt = self.prompts[role] if prompt is None else prompt
        limit = self.max_lengths[role]
        encoded = self.backend(
            [prompt + text for text in texts],
            truncation=True,
            max_length=limit if max_length is None else min(limit, max_length),
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return encoded["input_ids"]
