"""From texts to token ids: the prompt of the role, then the role's length limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Role = Literal["query", "document"]

CHARACTERS_PER_TOKEN = 64
"""More than any text has that is worth reading. *Measured*: all of a text of 10 MB takes multilingual-e5's
tokenizer 7 s and 2 GB, for the 512 tokens that are kept."""
_TEXTS_AT_ONCE = 1024
"""What a tokenizer makes beside the ids (pieces, places, masks) takes 150 bytes a token for a while."""


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

    def of(self, role: Role) -> RoleTokenizer:
        """The tokenizer of a role's encoder; here one does for both."""
        return self

    def __call__(
        self, texts: Sequence[str], role: Role, max_length: int | None = None, prompt: str | None = None
    ) -> list[list[int]]:
        """Token ids of each text, special tokens included, not padded, cut to the role's or this length.

        The prompt, where one is given, takes the place of the role's.
        """
        prompt = self.prompts[role] if prompt is None else prompt
        limit = self.max_lengths[role] if max_length is None else min(self.max_lengths[role], max_length)
        enough = CHARACTERS_PER_TOKEN * limit
        tokens = self._encode([prompt + text[:enough] for text in texts], limit)
        for row, text in enumerate(texts):
            if len(text) > enough and len(tokens[row]) < limit:  # few tokens of many characters each
                tokens[row] = self._encode([prompt + text], limit)[0]
        return tokens

    def _encode(self, texts: list[str], limit: int) -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            encoded = self.backend(
                texts[start : start + _TEXTS_AT_ONCE],
                truncation=True,
                max_length=limit,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
            found += encoded["input_ids"]
        return found

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """Tokens of each text with the role's prompt and special tokens, where nothing is cut."""
        encoded = self.backend(
            [self.prompts[role] + text for text in texts],
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # it would warn of every text beyond the model's limit
        )
        return [len(ids) for ids in encoded["input_ids"]]
