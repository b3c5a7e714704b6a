"""Approximate search by faiss for corpora that are too large to compare every query with every document."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_retrofit.errors import UserError
from lit_retrofit.model.device import free_memory

IndexName = Literal["auto", "exact", "ivf", "ivfpq"]
"""``ivf`` looks into the lists of vectors nearest to the query; ``ivfpq`` also keeps the vectors in codes."""

APPROXIMATE_FROM = 5_000_000
"""Documents from which ``auto`` takes an index; an exact search of 10,000 queries then takes minutes on two
cores for each million documents."""
TRAINED_PER_LIST = 64
"""Vectors per list that the lists are learnt from; faiss warns below 39."""
LEAST_TRAINED = 9984
"""39 for each of the 256 centroids of a code."""
CODE_VALUES = 4
"""Numbers of a vector that share a byte of its code."""
ADDED_ROWS = 65536
SAMPLE = 256
"""Queries on which the recall is measured; its standard error is then below 1 %."""
TARGET = 0.95
FIRST_PROBES = 8


def choose_index(name: IndexName, documents: int) -> Literal["exact", "ivf", "ivfpq"]:
    """What ``auto`` means for a corpus of this many documents."""
    if name == "auto":
        return "exact" if documents < APPROXIMATE_FROM else "ivfpq"
    return name


class ApproximateIndex:
    """An inverted file over a corpus, searched as broadly as a recall of `TARGET` demands.

    Args:
        corpus: (documents, dimension) float32 on the CPU, possibly memory-mapped; read in pieces.
        name: ivf or ivfpq.
        device: on a GPU the index lies there where the installed faiss can.
        seed: of the sample that the lists are learnt from.

    Raises:
        UserError: the index does not fit into memory, or the corpus is too small for one.
    """

    def __init__(
        self, corpus: Tensor, name: Literal["ivf", "ivfpq"], *, device: torch.device, seed: int = 0
    ) -> None:
        faiss = _faiss()
        self.corpus, self.name = corpus, name
        documents, dimension = corpus.shape
        self.lists = max(1, min(round(4 * math.sqrt(documents)), documents // TRAINED_PER_LIST))
        self.on_gpu = device.type == "cuda" and getattr(faiss, "get_num_gpus", int)() > 0
        _check_fits(name, documents, dimension, self.lists, device if self.on_gpu else torch.device("cpu"))
        quantizer = faiss.IndexFlatIP(dimension)
        metric = faiss.METRIC_INNER_PRODUCT
        if name == "ivf":
            index = faiss.IndexIVFFlat(quantizer, dimension, self.lists, metric)
        else:
            index = faiss.IndexIVFPQ(quantizer, dimension, self.lists, code_bytes(dimension), 8, metric)
        index.cp.seed = seed
        if self.on_gpu:
            self._resources = faiss.StandardGpuResources()
            index = faiss.index_cpu_to_gpu(self._resources, device.index or 0, index)
        self._index: Any = index
        self._train(seed)
        for start in range(0, documents, ADDED_ROWS):
            index.add(corpus[start : start + ADDED_ROWS].numpy())
        index.nprobe = min(FIRST_PROBES, self.lists)

    @property
    def probes(self) -> int:
        """How many lists a search looks into."""
        return self._index.nprobe

    def search(self, queries: Tensor, k: int, allowed: NDArray[np.bool_] | None = None) -> Tensor:
        """Finds documents near each query.

        Args:
            queries: (Q, dimension) float32 on the CPU.
            k: how many.
            allowed: (documents,) which of them may be found; all by default. On a GPU the search goes deeper
                and leaves out the others, and may so find fewer than there are.

        Returns:
            (Q, k) int64 rows of the corpus, nearest first as far as the index can tell, padded with -1.
        """
        if allowed is None:
            return torch.from_numpy(self._index.search(queries.numpy(), k)[1])
        if self.on_gpu:
            found = self._index.search(queries.numpy(), min(4 * k, 2048))[1]
            return _first(np.where(allowed[found] & (found >= 0), found, -1), k)
        bits = np.packbits(allowed, bitorder="little")
        faiss = _faiss()
        chosen = faiss.SearchParametersIVF(
            sel=faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits)), nprobe=self.probes
        )
        return torch.from_numpy(self._index.search(queries.numpy(), k, params=chosen)[1])

    def tune(self, search: Callable[[], Tensor], exact: Tensor) -> float:
        """Looks into more lists until a search finds `TARGET` of what an exact search finds.

        Args:
            search: searches with this index for a `sample` of the queries, as will be done for all;
                (Q, k) int64 rows.
            exact: (Q, k) int64, the rows that an exact search finds for the same queries, padded with -1.

        Returns:
            The share of these rows that was found in the end.
        """
        recall = _recall(search(), exact)
        while recall < TARGET and self.probes < self.lists:
            self._index.nprobe = min(2 * self.probes, self.lists)
            before, recall = recall, _recall(search(), exact)
            if (self.name == "ivfpq" or self.on_gpu) and recall - before < 0.002:
                break  # lost in the codes, or in how deep a GPU looks for what is allowed; not in the lists
        return recall

    def _train(self, seed: int) -> None:
        documents = len(self.corpus)
        wanted = min(documents, max(TRAINED_PER_LIST * self.lists, LEAST_TRAINED))
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(documents, generator=generator)[:wanted].sort().values
        self._index.train(self.corpus[rows].numpy())


def sample(queries: int, seed: int = 0) -> Tensor:
    """(Q,) int64, at most `SAMPLE` of so many queries, to measure the recall on."""
    return torch.randperm(queries, generator=torch.Generator().manual_seed(seed))[:SAMPLE]


def code_bytes(dimension: int) -> int:
    """Bytes of a code: the largest divisor of the dimension that gives each byte `CODE_VALUES` or more."""
    return next(size for size in range(max(1, dimension // CODE_VALUES), 0, -1) if dimension % size == 0)


def bytes_needed(name: Literal["ivf", "ivfpq"], documents: int, dimension: int, lists: int) -> int:
    """Memory of an index: ids and vectors or codes, the lists' centres, and the sample it learns from."""
    row = 8 + (4 * dimension if name == "ivf" else code_bytes(dimension))
    sample = min(documents, max(TRAINED_PER_LIST * lists, LEAST_TRAINED))
    return documents * row + (lists + sample) * 4 * dimension


def _check_fits(
    name: Literal["ivf", "ivfpq"], documents: int, dimension: int, lists: int, device: torch.device
) -> None:
    if documents < LEAST_TRAINED:
        raise UserError(
            f"index {name} needs {LEAST_TRAINED} documents or more and there are {documents}; use index exact"
        )
    needed, free = bytes_needed(name, documents, dimension, lists), free_memory(device)
    if needed > free:
        coded = bytes_needed("ivfpq", documents, dimension, lists)
        other = f"use ivfpq ({coded / 1e9:.1f} GB) or" if name == "ivf" and coded <= free else "use"
        raise UserError(
            f"index {name} of {documents} documents needs {needed / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free; {other} index exact, which reads the embeddings from disk"
        )


def _faiss() -> Any:
    """Imported when needed; its type stubs know little of it."""
    import faiss

    return faiss


def _recall(found: Tensor, exact: Tensor) -> float:
    """The share of the exact rows that were found; 1 where there are none."""
    wanted = exact >= 0  # a scope may have fewer documents than were asked for
    hits = (found.unsqueeze(2) == exact.unsqueeze(1)).any(dim=1) & wanted
    return float(hits.sum() / wanted.sum()) if wanted.any() else 1.0


def _first(rows: NDArray[np.int64], k: int) -> Tensor:
    """The first k that are no padding, of each row."""
    order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
    return torch.from_numpy(np.take_along_axis(rows, order, axis=1))
