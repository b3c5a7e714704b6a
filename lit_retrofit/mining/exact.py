"""The exact search of a pool: each query among the documents of its scope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from retrofit_kernels import NeighbourOptions, Neighbours
from torch import Tensor

from lit_retrofit.mining.pool import Pool, PoolQuery
from lit_retrofit.retrieval.search import Backend, search


@dataclass(frozen=True, eq=False)
class Exclusions:
    """What some queries may not find.

    Attributes:
        known: (Q, P) int64 rows, padded with -1.
        below: (Q,) what a score must stay strictly below.
    """

    known: Tensor
    below: Tensor


@dataclass(frozen=True, eq=False)
class ExactSearch:
    """Embeddings of a pool and how they are searched.

    Attributes:
        pool: what was embedded.
        queries: (queries, dimension) float32 on the CPU, in the pool's order.
        documents: (documents, dimension) float32 on the CPU, in the pool's order, from where the search
            reads them tile by tile: they need not fit into the device's memory.
        backend: of the search.
        device: to search on.
    """

    pool: Pool
    queries: Tensor
    documents: Tensor
    backend: Backend = "torch"
    device: torch.device | str = "cpu"

    def nearest(self, queries: Tensor, k: int, exclusions: Exclusions | None = None) -> Neighbours:
        """Finds the k nearest documents in the scope of each query.

        Args:
            queries: (Q,) int64 positions in the pool.
            k: documents per query, at most as many as the pool has.
            exclusions: of these queries.

        Returns:
            Scores and rows, (Q, k) on the CPU, best first, equal scores by row, padded with -inf and -1.
        """
        found = Neighbours(torch.full((len(queries), k), -torch.inf), torch.full((len(queries), k), -1))
        everything = torch.arange(len(self.pool.documents), device=self.device)
        block = [self.pool.queries[query] for query in queries.tolist()]
        for part, groups in self._parts(block):
            options = NeighbourOptions(
                query_ids=None if exclusions is None else exclusions.known[part].to(self.device),
                corpus_ids=None if exclusions is None else everything,
                ceiling=None if exclusions is None else exclusions.below[part].to(self.device),
                query_groups=None if groups is None else groups[0],
                corpus_groups=None if groups is None else groups[1],
            )
            vectors = self.queries[queries[part]].to(self.device)
            near = search(vectors, self.documents, k, options=options, backend=self.backend)
            found.scores[part], found.indices[part] = near.scores.cpu(), near.indices.cpu()
        return found

    def _parts(self, block: Sequence[PoolQuery]) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor] | None]]:
        """Positions in the block, and the groups of their queries and of the documents, if any."""
        everyone = torch.arange(len(block))
        documents = self.pool.documents
        if self.pool.scope == "all":
            yield everyone, None
        elif self.pool.scope == "other":
            for language in sorted({query.language or "" for query in block}):
                part = everyone[[query.language == language for query in block]]
                foreign = torch.tensor([document.language != language for document in documents])
                yield part, (torch.ones_like(part).to(self.device), foreign.long().to(self.device))
        else:
            names = {query.language for query in block} | {document.language for document in documents}
            codes = {name: code for code, name in enumerate(sorted(name for name in names if name))}
            of_queries = torch.tensor([codes[query.language or ""] for query in block], device=self.device)
            of_documents = [codes[document.language or ""] for document in documents]
            yield everyone, (of_queries, torch.tensor(of_documents, device=self.device))
