"""A sample of an evaluation set, embedded by the models: what the picture of the space shows."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.evaluation.results import Results
from lit_retrofit.model.device import choose_device
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.embed import embed_texts

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SampledText:
    """A query or document.

    Attributes:
        role: which of the two.
        text: without prompt.
        language: "unknown" where the set names none.
        page: number of its group: a query and its relevant documents, versions of one page where the set
            has it in several languages.
    """

    role: Role
    text: str
    language: str
    page: int


def draw_sample(data: RetrievalSet, texts: int, seed: int = 0) -> tuple[SampledText, ...]:
    """Queries, language by language in turn, each with one relevant document of each language.

    A document is drawn once. The draw depends on the seed and the set alone.

    Args:
        data: the evaluation set.
        texts: how many, at most.
        seed: of the order in which queries are drawn.
    """
    documents = {document.id: document for document in data.corpus}
    used: set[str] = set()
    found: list[SampledText] = []
    pages = 0
    for query in _in_turn(data.queries, seed):
        by_language: dict[str, Document] = {}
        for id in sorted(id for id, grade in data.qrels[query.id].items() if grade > 0 and id in documents):
            by_language.setdefault(documents[id].language or UNKNOWN, documents[id])
        chosen = [by_language[language] for language in sorted(by_language)]
        if not chosen or used & {document.id for document in chosen}:
            continue
        if len(found) + 1 + len(chosen) > texts:
            break
        used |= {document.id for document in chosen}
        found.append(SampledText("query", query.text, query.language or UNKNOWN, pages))
        found += [SampledText("document", d.text, d.language or UNKNOWN, pages) for d in chosen]
        pages += 1
    return tuple(found)


def _in_turn(queries: Sequence[Query], seed: int) -> list[Query]:
    """The queries in a drawn order, one of each language after the other."""
    by_language: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        by_language[query.language or UNKNOWN].append(query)
    drawn = random.Random(seed)
    columns = [drawn.sample(by_language[name], len(by_language[name])) for name in sorted(by_language)]
    longest = max(map(len, columns), default=0)
    return [column[row] for row in range(longest) for column in columns if row < len(column)]


def embed_sample(sample: Sequence[SampledText], model: str, results: Results) -> NDArray[np.float32]:
    """Embeds the sample as the evaluation embedded its texts.

    Args:
        sample: the texts.
        model: the evaluated model, where it is now.
        results: the evaluation, for prompts, pooling and lengths.

    Returns:
        (texts, dimension) float32.

    Raises:
        UserError: the model cannot be loaded.
    """
    encoder = load_encoder(model, **_own(results.settings)).to(choose_device("auto"))
    embeddings: NDArray[np.float32] | None = None
    for role in ("query", "document"):
        rows = [row for row, text in enumerate(sample) if text.role == role]
        found = embed_texts(encoder, [sample[row].text for row in rows], role).numpy()
        if embeddings is None:
            embeddings = np.empty((len(sample), found.shape[1]), np.float32)
        embeddings[rows] = found
    assert embeddings is not None
    return embeddings


def _own(settings: dict[str, Any]) -> dict[str, Any]:
    """The options of ``load_encoder`` that the evaluation had in effect."""
    lengths = {settings.get("query_max_length"), settings.get("document_max_length")}
    options = {name: settings.get(name) for name in ("query_prompt", "document_prompt", "pooling")}
    return {**options, "max_length": lengths.pop() if len(lengths) == 1 else None}


def place_of(model: str, run: Path | None) -> str:
    """Where a model is now: as the evaluation names it, or else of that name beside the training run."""
    beside = run.parent / Path(model).name if run is not None else None
    return str(beside) if beside is not None and not Path(model).exists() and beside.exists() else model
