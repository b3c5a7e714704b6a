"""Scores pairs through a store on disk: only what it does not have yet, and only once among processes.

The store is that of embeddings. A row of it has the scores of a block of pairs, padded with zeros, and the
row's key is the hash of the block's texts, in their order.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lit_retrofit.model.cross_encoder import CrossEncoder
from lit_retrofit.model.fingerprint import hash_parts
from lit_retrofit.retrieval.cached import POLL_SECONDS
from lit_retrofit.retrieval.store import KEY_BYTES, EmbeddingKey, EmbeddingStore, digests_of

PAIR_BLOCK = 1024
"""Pairs between two writes: what a killed process loses, and what a process takes for itself."""

Pairs = Sequence[tuple[str, str]]


class CachedCrossEncoder:
    """Scores pairs as a `CrossEncoder` does, but keeps the scores in a folder and takes them from there.

    A process that is killed goes on where it was when it is started again, and ends with the same scores to
    the bit. Several processes that score the same pairs at the same time share the work.

    Args:
        model: scores what the folder does not have.
        cache: folder of embeddings and scores, of any models.

    Attributes:
        asked: how many scores were asked for until now.
        scored: how many of them the model gave; the others were in the folder.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, model: CrossEncoder, cache: Path) -> None:
        self.asked, self.scored = 0, 0
        self._model = model
        self._store = EmbeddingStore(cache, score_key(model))
        self._rows: dict[bytes, int] = {}
        self._seen = 0

    def scores(self, pairs: Pairs) -> Tensor:
        """(pairs,) float32 on the CPU: the classifier's output (a logit), larger is more relevant.

        Args:
            pairs: query and document, without prompts.

        Raises:
            UserError: the folder cannot be written or the disk is full.
        """
        size = self._store.key.dimension
        # A score's last bits depend on the pairs beside it in a batch: a block is scored whole or not at all.
        blocks = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        digests = [_digest(block) for block in blocks]
        self.asked += len(pairs)
        self._refresh()
        while missing := [at for at, digest in enumerate(digests) if digest not in self._rows]:
            if not sum(self._score(blocks[at], digests[at]) for at in missing):
                time.sleep(POLL_SECONDS)  # the rest is being scored by other processes
                self._refresh()
        found = [self._stored(digest)[: len(block)] for block, digest in zip(blocks, digests, strict=True)]
        return torch.cat(found) if found else torch.empty(0)

    def _score(self, block: Pairs, digest: bytes) -> int:
        """Scores a block, unless another process does or has done so; how many pairs it were."""
        with self._store.claim(digest.hex()) as mine:
            self._refresh()  # it may have been scored until now
            if not mine or digest in self._rows:
                return 0
            row = np.zeros((1, self._store.key.dimension), np.float32)
            row[0, : len(block)] = self._model.scores(block).numpy()
            self._store.append(np.array([digest], f"S{KEY_BYTES}"), row)
            self._refresh()
        self.scored += len(block)
        return len(block)

    def _refresh(self) -> None:
        """Looks up what was added to the store since the last time."""
        new = self._store.keys(self._seen).tolist()
        self._rows.update(zip(new, range(self._seen, self._seen + len(new)), strict=True))
        self._seen += len(new)

    def _stored(self, digest: bytes) -> Tensor:
        return self._store.vectors(np.array([self._rows[digest]]))[0]


def score_key(model: CrossEncoder) -> EmbeddingKey:
    """Everything that a score depends on beside its texts, as the store takes it.

    How many tokens are worked on at a time is not in it, as in that of embeddings: who runs out of memory and
    asks for fewer keeps what there is.
    """
    backend = model.backend
    return EmbeddingKey(
        model=_fingerprint(backend),
        role="document",
        prompt=backend.prompts.get(backend.default_prompt_name) or "",
        pooling="cross_encoder",  # no encoder's, so that no row is taken for an embedding
        normalise=False,
        max_length=backend.max_length,
        precision=str(model.dtype or torch.float32).removeprefix("torch."),
        dimension=PAIR_BLOCK,
    )


def _fingerprint(backend: Any) -> str:
    """Of the classifier as of an encoder, and of what sentence-transformers does around it."""
    tokenizer, adapters = backend.tokenizer, getattr(backend.model, "peft_config", None)
    around = {
        "classifier": hash_parts(backend.state_dict(), backend.config, adapters, tokenizer),
        "modules": [[type(module).__name__, module.get_config_dict()] for module in backend],
        "sides": [tokenizer.truncation_side, tokenizer.padding_side],
        "inputs": tokenizer.model_input_names,
        "template": tokenizer.chat_template,
    }
    return hashlib.sha256(json.dumps(around, sort_keys=True, default=str).encode()).hexdigest()


def _digest(block: Pairs) -> bytes:
    """The hash of a block's texts as the store gives it back, which is without zeros at its end."""
    texts = digests_of([text for pair in block for text in pair])
    return cast(bytes, digests_of([texts.tobytes().hex()]).tolist()[0])
