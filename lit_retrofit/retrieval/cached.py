"""Embeds texts through a store on disk: only what it does not have yet, and only once among processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from lit_retrofit.model.device import Precision
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.embed import COLUMNS, embed_texts
from lit_retrofit.retrieval.store import Digests, EmbeddingKey, EmbeddingStore, digests_of

CHUNK = 2048
"""Texts between two writes: what a killed process loses, and what a process takes for itself."""
POLL_SECONDS = 0.2


class Wanted:
    """Where a store has the wanted texts, as far as it has them.

    Attributes:
        digests: (texts,) hashes of different texts.
        rows: (texts,) int64 rows of the store, -1 for a text that it does not have.
        found: how many of the texts it has.
    """

    def __init__(self, digests: Digests) -> None:
        self.digests = digests
        self.rows = np.full(len(digests), -1, dtype=np.int64)
        self.found = 0
        self._order = np.argsort(digests)
        self._sorted = digests[self._order]
        self._seen = 0

    def refresh(self, store: EmbeddingStore) -> None:
        """Looks up what was added to the store since the last time."""
        new = store.keys(self._seen)
        if len(self.digests) and len(new):
            at = np.searchsorted(self._sorted, new).clip(max=len(self.digests) - 1)
            hits = np.flatnonzero(self._sorted[at] == new)
            places = self._order[at[hits]]
            self.found += int((self.rows[np.unique(places)] < 0).sum())
            self.rows[places] = self._seen + hits
        self._seen += len(new)

    def missing(self, start: int = 0, end: int | None = None) -> NDArray[np.int64]:
        """Positions of wanted texts, from `start` to before `end`, that the store does not have."""
        return start + np.flatnonzero(self.rows[start:end] < 0)


def embed_cached(
    encoder: Encoders,
    texts: Sequence[str],
    role: Role,
    *,
    cache: Path,
    token_budget: int | None = None,
    precision: Precision = "fp32",
    description: str | None = None,
) -> Tensor:
    """Embeds texts as `embed_texts` does, but keeps the embeddings in a folder and takes them from there.

    A process that is killed goes on where it was when it is started again. Several processes that work on
    the same texts at the same time, on one machine or on several with a common folder, share the work.

    Args:
        encoder: on the device to use; its training mode is restored afterwards.
        texts: without prompts.
        role: query or document.
        cache: folder of embeddings, of any models.
        token_budget: padded tokens of a micro-batch; by default as many as suit the device.
        precision: see `embed_texts`.
        description: shown beside a progress bar; no bar without it.

    Returns:
        (texts, dimension) float32, memory-mapped; not to be written to.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    unique = list(dict.fromkeys(texts))
    store = EmbeddingStore(cache, EmbeddingKey.of(encoder, role, precision))
    wanted = Wanted(digests_of(unique))
    wanted.refresh(store)
    store.check_space(len(unique) - wanted.found)
    with Progress(*COLUMNS, disable=description is None) as progress:
        bar = progress.add_task(description or "", total=len(unique))
        while wanted.found < len(unique):
            embedded = 0
            for start in range(0, len(unique), CHUNK):
                progress.update(bar, completed=wanted.found)
                embedded += _embed_chunk(encoder, unique, role, start, wanted, store, token_budget, precision)
            if not embedded and wanted.found < len(unique):
                time.sleep(POLL_SECONDS)  # the rest is being embedded by other processes
                wanted.refresh(store)
        progress.update(bar, completed=len(unique))
    if len(unique) == len(texts):
        return store.vectors(wanted.rows)
    places = {text: row for text, row in zip(unique, wanted.rows, strict=True)}
    return store.vectors(np.array([places[text] for text in texts], dtype=np.int64))


def _embed_chunk(
    encoder: Encoders,
    texts: Sequence[str],
    role: Role,
    start: int,
    wanted: Wanted,
    store: EmbeddingStore,
    token_budget: int | None,
    precision: Precision,
) -> int:
    """Embeds what is missing of a chunk, unless another process does; how many texts it were."""
    end = start + CHUNK
    if not len(wanted.missing(start, end)):
        return 0
    with store.claim(wanted.digests[start].hex()) as mine:
        wanted.refresh(store)  # it may have been embedded until now
        missing = wanted.missing(start, end)
        if not mine or not len(missing):
            return 0
        vectors = embed_texts(
            encoder, [texts[at] for at in missing], role, token_budget=token_budget, precision=precision
        )
        store.append(wanted.digests[missing], vectors.numpy())
        wanted.refresh(store)
        return len(missing)
