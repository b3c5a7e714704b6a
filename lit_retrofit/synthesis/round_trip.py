"""The round trip: a query must find its own document again, by an embedding model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lit_retrofit.data.records import Document
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.synthesis.drafts import Draft
from lit_retrofit.synthesis.filters import Drops

Embed = Callable[[Sequence[str], Role], Tensor]
"""Texts and their role → (texts, dimension), normalised."""

_ROWS = 256  # queries scored at a time


def keep_found(
    drafts: Sequence[Draft], corpus: Sequence[Document], k: int, embed: Embed
) -> tuple[list[Draft], Drops]:
    """Keeps drafts whose document ranks among the first k for their query.

    The rank is one more than the number of different texts in the document's language that score higher.
    Parts of documents compete with whole ones; the whole document of a part does not count against it.

    Args:
        drafts: to look at.
        corpus: what the positives compete with; those that are not in it are added.
        k: the last rank that counts as found.
        embed: the model.
    """
    ranks = _ranks(drafts, corpus, embed)
    drops = Drops()
    kept = []
    for draft, rank in zip(drafts, ranks, strict=True):
        if rank <= k:
            kept.append(draft)
        else:
            drops.note(draft.query)
    return kept, drops


def _ranks(drafts: Sequence[Draft], corpus: Sequence[Document], embed: Embed) -> list[int]:
    pools: defaultdict[str | None, dict[str, str]] = defaultdict(dict)  # language → text → id
    for document in (*corpus, *(draft.positive for draft in drafts)):
        pools[document.language].setdefault(document.text, document.id)
    rows_of: defaultdict[str | None, list[int]] = defaultdict(list)
    for row, draft in enumerate(drafts):
        rows_of[draft.positive.language].append(row)
    ranks = [0] * len(drafts)
    for language, rows in rows_of.items():
        texts = list(pools[language])
        columns = {text: column for column, text in enumerate(texts)}
        pages: defaultdict[str, list[int]] = defaultdict(list)
        for text, id in pools[language].items():
            pages[_page(id)].append(columns[text])
        queries = embed([drafts[row].query for row in rows], "query")
        documents = embed(texts, "document")
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            scores = queries[start : start + _ROWS] @ documents.T
            for scored, row in zip(scores, part, strict=True):
                positive = drafts[row].positive
                own = scored[columns[positive.text]].item()
                scored[pages[_page(positive.id)]] = -torch.inf
                ranks[row] = 1 + int((scored > own).sum())
    return ranks


def _page(id: str) -> str:
    """The document that a part is of."""
    return id.split("#text:")[0]


def drop_higher_negatives(drafts: Sequence[Draft], embed: Embed) -> tuple[list[Draft], Drops]:
    """Takes away written negatives that the model finds nearer to the query than the positive."""
    rows = [row for row, draft in enumerate(drafts) if draft.negatives]
    drops = Drops()
    if not rows:
        return list(drafts), drops
    queries = embed([drafts[row].query for row in rows], "query")
    positives = embed([drafts[row].positive.text for row in rows], "document")
    texts = [document.text for row in rows for document in drafts[row].negatives]
    negatives = iter(embed(texts, "document"))
    checked = list(drafts)
    for row, query, positive in zip(rows, queries, positives, strict=True):
        draft, limit = drafts[row], query @ positive
        kept = tuple([document for document in draft.negatives if query @ next(negatives) < limit])
        for _ in range(len(draft.negatives) - len(kept)):
            drops.note(draft.query)
        checked[row] = replace(draft, negatives=kept)
    return checked, drops
