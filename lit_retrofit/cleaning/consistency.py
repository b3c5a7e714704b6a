"""Does a query find its document? Ranks of positives among the documents of a pool of records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.cleaning.folding import fold, hash_text
from lit_retrofit.cleaning.options import ConsistencyOptions
from lit_retrofit.cleaning.work import save_arrays
from lit_retrofit.data.records import Record
from lit_retrofit.retrieval.lexical import LexicalIndex

if TYPE_CHECKING:
    from torch import Tensor

    from lit_retrofit.model.tokenizer import Role

BM25 = "bm25"
_QUERIES = 256  # scored at a time: 51 MB of scores over a pool of 50,000 documents
# Yields, for queries one after another, (some queries, documents) scores.
Scorer = Callable[[Sequence[str], Sequence[str]], Iterator[NDArray[np.float32]]]


class Pool(NamedTuple):
    """Records that are searched together.

    Attributes:
        path: where the ranks go.
        records: at least one.
    """

    path: Path
    records: Sequence[Record]


class Ranker:
    """Ranks the positives of pools by one retriever, and writes the ranks.

    Args:
        options: which retriever.
    """

    def __init__(self, options: ConsistencyOptions) -> None:
        self._score: Scorer = score_bm25 if options.retriever == BM25 else _model_scorer(options)

    def __call__(self, pool: Pool) -> Path:
        """Ranks the positives of a pool; returns where the ranks are."""
        save_arrays(pool.path, ranks=rank_positives(pool.records, self._score))
        return pool.path


def rank_positives(records: Sequence[Record], score: Scorer) -> NDArray[np.int32]:
    """The rank of each record's best positive among the pool's positives and negatives.

    Not counted are other known answers: documents of the record's group, of records with an equal query, and
    texts equal to these. Equal scores do not count against the positive.

    Returns:
        (records,) from 1; where the retriever does not find the positive at all, one more than there are
        documents.
    """
    documents = _Documents()
    own = [[documents.number(d.text) for d in record.positives] for record in records]
    for record in records:
        for negative in record.negatives:
            documents.number(negative.text)
    answers = _known_answers(records, own)
    ranks = np.empty(len(records), np.int32)
    row = 0
    for scores in score([record.query for record in records], documents.texts):
        for line in scores:
            best = float(line[own[row]].max())
            if best == -np.inf:
                ranks[row] = len(documents.texts) + 1
            else:
                better = np.count_nonzero(line > best) - np.count_nonzero(line[answers[row]] > best)
                ranks[row] = 1 + better
            row += 1
    return ranks


class _Documents:
    """Distinct texts, numbered as they come."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[int, int] = {}

    def number(self, text: str) -> int:
        key = hash_text(fold(text))
        if key not in self._numbers:
            self._numbers[key] = len(self.texts)
            self.texts.append(text)
        return self._numbers[key]


def _known_answers(records: Sequence[Record], own: Sequence[Sequence[int]]) -> list[list[int]]:
    sharing: dict[object, set[int]] = defaultdict(set)
    keys = []
    for record, positives in zip(records, own, strict=True):
        keys.append([("query", hash_text(fold(record.query)))])
        if record.group is not None:
            keys[-1].append(("group", hash_text(record.group)))
        for key in keys[-1]:
            sharing[key].update(positives)
    return [sorted(set().union(*(sharing[key] for key in names))) for names in keys]


def score_bm25(queries: Sequence[str], documents: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    """BM25 (Lucene's variant, k1 1.5, b 0.75); -inf where a document shares no word with the query."""
    index = LexicalIndex(documents)
    for query in queries:
        scores = index.scores(query)
        yield np.where(scores > 0, scores, -np.inf)[None].astype(np.float32)


def _model_scorer(options: ConsistencyOptions) -> Scorer:
    from lit_retrofit.model.device import choose_device
    from lit_retrofit.model.loading import load_encoder
    from lit_retrofit.retrieval.embed import embed_texts

    encoder = load_encoder(options.retriever or "", max_length=options.max_length)
    encoder = encoder.to(choose_device(options.device))

    def embed(texts: Sequence[str], role: Role) -> Tensor:
        return embed_texts(
            encoder,
            texts,
            role,
            token_budget=options.token_budget,
            precision="auto",
        ).to(encoder.device)

    def score(queries: Sequence[str], documents: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        of_queries, of_documents = embed(queries, "query"), embed(documents, "document")
        for part in of_queries.split(_QUERIES):
            yield (part @ of_documents.T).cpu().numpy()

    return score
