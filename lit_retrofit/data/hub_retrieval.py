"""Evaluation sets on the Hugging Face hub, in the layout that mteb gives all of its own.

A data set has the configurations ``corpus`` (``_id``, ``text``, perhaps ``title``), ``queries`` (``_id``,
``text``) and ``default`` or ``qrels`` (``query-id``, ``corpus-id``, ``score``), and for reranking
``top_ranked`` (``query-id``, ``corpus-ids``). One of several languages puts its name before them:
``de-corpus``, ``de-queries``, ``de-qrels``, ``de-top_ranked``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lit_retrofit.data.beir import beir_document, beir_query
from lit_retrofit.data.corpus import collect_by_id
from lit_retrofit.data.hub import load, reaching
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError

_logger = logging.getLogger(__name__)
Candidates = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class HubSet:
    """Where an evaluation set is.

    Attributes:
        path: ``org/name`` on the hub, or a folder in the same layout.
        split: of the judgements; the texts are in the split of that name, or in their only one.
        revision: a commit of the hub's repository; the newest where None.
        subset: what stands before ``-corpus`` and the others, where there are several.
        language: of all its texts, where known.
    """

    path: str
    split: str = "test"
    revision: str | None = None
    subset: str | None = None
    language: str | None = None

    @property
    def source(self) -> str:
        """For messages."""
        return f"hf:{self.path}" + (f":{self.subset}" if self.subset else "")


def read_hub_set(hub: HubSet, *, name: str | None = None) -> RetrievalSet:
    """Reads an evaluation set; blank texts and judgements of unknown ids are left out, counted and logged.

    Queries without a relevant document in this split are not part of the set.

    Args:
        hub: where it is.
        name: shown in tables; the source by default.

    Raises:
        UserError: it is out of reach, lacks a configuration or a column, or has no judgement.
    """
    skips = Skips(skip_invalid=True)
    left_out: set[str] = set()
    corpus = collect_by_id(_rows(hub, "corpus"), hub.source, "corpus", "_id", beir_document, skips, left_out)
    queries = collect_by_id(_rows(hub, "queries"), hub.source, "queries", "_id", beir_query, skips)
    qrels: dict[str, dict[str, int]] = {}
    for row, judgement in _rows(hub, "qrels"):
        query_id, document_id, grade = _judgement(hub, judgement)
        if query_id in queries and document_id in corpus:
            qrels.setdefault(query_id, {})[document_id] = grade
        else:
            skips.note(row, f"qrels: {'document' if query_id in queries else 'query'} unknown")
    for reason, count in skips.counts.items():
        _logger.warning("%s: skipped %d: %s", hub.source, count, reason)
    kept = [query for query, _ in queries.values() if max(qrels.get(query.id, {}).values(), default=0) > 0]
    if not kept:
        raise UserError(f"{hub.source}: no query has a relevant document in the split '{hub.split}'")
    return RetrievalSet(
        name=name or hub.source,
        queries=tuple(_in_language(query, hub.language) for query in kept),
        corpus=tuple(_in_language(document, hub.language) for document, _ in corpus.values()),
        qrels={query.id: qrels[query.id] for query in kept},
        left_out=frozenset(left_out),
    )


def read_hub_candidates(hub: HubSet) -> Candidates:
    """Reads which documents each query's reranking chooses from, best first: query id → document ids.

    Raises:
        UserError: it is out of reach, or has no configuration ``top_ranked``.
    """
    found: Candidates = {}
    for row, content in _rows(hub, "top_ranked"):
        if "query-id" not in content or not isinstance(content.get("corpus-ids"), list):
            raise UserError(f"{hub.source}:{row}: top_ranked has no columns 'query-id' and 'corpus-ids'")
        found[str(content["query-id"])] = tuple(map(str, content["corpus-ids"]))
    return found


def _in_language(item: Any, language: str | None) -> Any:
    return replace(item, language=language) if language else item


def _rows(hub: HubSet, part: str) -> Iterator[tuple[int, dict[str, Any]]]:
    config = f"{hub.subset}-{part}" if hub.subset else part
    if part == "qrels" and not hub.subset and "qrels" not in _configs(hub):
        config = "default"
    dataset = load(hub.source, hub.path, config, _split(hub, config), hub.revision)
    for row, content in enumerate(dataset, 1):
        # `id` where others write `_id`; ids are integers in some sets
        if part in ("corpus", "queries"):
            content["_id"] = str(content.pop("id") if "id" in content else content.get("_id", ""))
        yield row, content


def _configs(hub: HubSet) -> list[str]:
    import datasets

    with reaching(hub.source, hub.path):
        return datasets.get_dataset_config_names(hub.path, revision=hub.revision)


def _split(hub: HubSet, config: str) -> str:
    import datasets

    with reaching(hub.source, hub.path):
        splits = datasets.get_dataset_split_names(hub.path, config, revision=hub.revision)
    if hub.split in splits:
        return hub.split
    if len(splits) == 1 and not config.endswith(("qrels", "default")):
        return str(splits[0])
    raise UserError(f"{hub.source}: no split '{hub.split}' in {config}; there are {', '.join(splits)}")


def _judgement(hub: HubSet, row: dict[str, Any]) -> tuple[str, str, int]:
    try:
        return str(row["query-id"]), str(row["corpus-id"]), int(row["score"])
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{hub.source}: a judgement is {row!r:.200}; give it query-id, corpus-id and an integer score"
        ) from None


def read_belebele(path: str, languages: tuple[str, ...], *, revision: str | None = None) -> RetrievalSet:
    """Reads Belebele (arXiv 2308.16884) as a retrieval set over parallel languages, as mteb does.

    Rows have ``link``, ``flores_passage`` and ``question``. A passage is the answer to its questions in
    every language, so each pair of languages is a task.

    Args:
        path: ``mteb/belebele``, or a folder in the same layout: one configuration per language.
        languages: such as ``deu_Latn``.
        revision: a commit of the hub's repository.

    Raises:
        UserError: it is out of reach, or lacks a column.
    """
    corpus: dict[str, Document] = {}
    queries: dict[str, Query] = {}
    passages: dict[str, dict[str, int]] = {}  # link → its passages in all languages, as judgements
    links: dict[str, list[str]] = {}  # query → the passages that it was asked of
    for language in languages:
        source = f"hf:{path}:{language}"
        for row in load(source, path, language, "test", revision):
            if not all(isinstance(row.get(name), str) for name in ("link", "flores_passage", "question")):
                raise UserError(f"{source}: a row lacks link, flores_passage or question; is it Belebele?")
            document, query = f"{language}/{row['link']}", f"{language}/{row['question']}"
            corpus.setdefault(document, Document(document, row["flores_passage"], language))
            passages.setdefault(row["link"], {})[document] = 1
            queries.setdefault(query, Query(query, row["question"], language))
            links.setdefault(query, []).append(row["link"])
    return RetrievalSet(
        name="belebele",
        queries=tuple(queries.values()),
        corpus=tuple(corpus.values()),
        # Queries of one passage share its judgements: 122 languages would be 13 million entries.
        qrels={
            query: passages[of[0]] if len(set(of)) == 1 else {d: 1 for link in of for d in passages[link]}
            for query, of in links.items()
        },
    )
