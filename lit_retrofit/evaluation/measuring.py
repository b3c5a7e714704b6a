"""Measures one model on one benchmark, part by part."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.progress import track
from torch import Tensor

from lit_retrofit.data.hub_retrieval import Candidates
from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.benchmarks import Benchmark
from lit_retrofit.evaluation.bm25 import rank_bm25
from lit_retrofit.evaluation.latency import measure_latency
from lit_retrofit.evaluation.measures import TaskResult, evaluate_embeddings, notes_on_own_documents
from lit_retrofit.evaluation.reranking import rerank_embeddings, with_candidates
from lit_retrofit.evaluation.results import Results, TaskScores
from lit_retrofit.evaluation.tasks import DEFAULT_PIVOT, split_tasks
from lit_retrofit.evaluation.variants import Variant, check_variants, compress
from lit_retrofit.model.device import Precision
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.retrieval.workers import check_processes, embed_in_processes


@dataclass(frozen=True)
class MeasureOptions:
    """How to measure.

    Attributes:
        pivot: see ``split_tasks``.
        bm25: measure BM25 too.
        variants: smaller indexes to measure too.
        latency: time single queries too.
        token_budget: tokens embedded at a time; by default as many as suit the device.
        precision: of the embedding model.
        cache: folder that keeps embeddings; None keeps none.
        processes: that embed at the same time, through the cache.
    """

    pivot: str | None = DEFAULT_PIVOT
    bm25: bool = False
    variants: tuple[Variant, ...] = ()
    latency: bool = False
    token_budget: int | None = None
    precision: Precision = "fp32"
    cache: Path | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        """Refuses several processes without a cache to meet in."""
        if self.processes > 1 and self.cache is None:
            raise UserError("processes meet in the folder of embeddings; give one with --cache")


@dataclass(frozen=True)
class Measured:
    """A model on a benchmark.

    Attributes:
        results: what ``metrics.json`` says.
        rankings: the tasks' rankings, in the same order.
        notes: sentences about what was left out.
    """

    results: Results
    rankings: tuple[TaskResult, ...]
    notes: tuple[str, ...]


def measure_benchmark(
    encoder: Encoders, model: str, data: str, benchmark: Benchmark, options: MeasureOptions, split: str | None
) -> Measured:
    """Loads, embeds and measures each part of a benchmark; one part is in memory at a time.

    Args:
        encoder: on the device to use.
        model: its name.
        data: as the user named the benchmark.
        benchmark: its parts.
        options: how to measure.
        split: of the judgements, as the user named it; recorded.

    Raises:
        UserError: the data or an option does not fit.
    """
    started = time.time()
    check_variants(options.variants, encoder.dimension, model)
    check_processes(options.processes, encoder.device)
    if options.pivot == DEFAULT_PIVOT:
        options = replace(options, pivot=benchmark.pivot)
    tasks: list[TaskScores] = []
    rankings: list[TaskResult] = []
    notes: dict[str, None] = {}
    cost = _Cost()
    for part in benchmark.parts:
        retrieval_set = part.load()
        candidates = part.load_candidates() if part.load_candidates else None
        found = _measure_part(encoder, retrieval_set, candidates, options, cost, notes)
        tasks += [scores for scores, _ in found]
        rankings += [ranking for _, ranking in found]
    if not tasks:
        raise UserError(
            f"{data}: no query has a candidate in a corpus of its own or the pivot's language; take the "
            "candidates of the same data set"
        )
    results = Results(
        started=started,
        seconds=time.time() - started,
        model=model,
        data=data,
        settings=settings_of(encoder, options, split, benchmark.candidates),
        tasks=tuple(tasks),
        cost=asdict(cost),
    )
    return Measured(results, tuple(rankings), tuple(notes))


@dataclass
class _Cost:
    """What searching costs, summed over the parts.

    Attributes:
        dimension: of an embedding.
        documents: in the index.
        index_bytes: of the vectors, by form of the index.
        latency: of single queries, in the first part.
    """

    dimension: int = 0
    documents: int = 0
    index_bytes: dict[str, int] = field(default_factory=dict)
    latency: dict[str, float] | None = None

    def add(self, encoder: Encoders, documents: int, options: MeasureOptions) -> None:
        self.dimension = encoder.dimension
        self.documents += documents
        for variant in (Variant(), *options.variants):
            size = variant.index_bytes(documents, encoder.dimension)
            self.index_bytes[variant.name] = self.index_bytes.get(variant.name, 0) + size


def _measure_part(
    encoder: Encoders,
    retrieval_set: RetrievalSet,
    candidates: Candidates | None,
    options: MeasureOptions,
    cost: _Cost,
    notes: dict[str, None],
) -> list[tuple[TaskScores, TaskResult]]:
    split = split_tasks(retrieval_set, pivot=options.pivot)
    if candidates is not None:
        split = with_candidates(retrieval_set, split, candidates)
    notes |= dict.fromkeys([*split.notes, *notes_on_own_documents(retrieval_set, split.tasks)])
    if not split.tasks:
        return []
    queries = embed(encoder, [query.text for query in retrieval_set.queries], "query", options)
    corpus = embed(encoder, [document.text for document in retrieval_set.corpus], "document", options)
    cost.add(encoder, len(corpus), options)
    if options.latency and cost.latency is None:
        texts = [query.text for query in retrieval_set.queries]
        cost.latency = measure_latency(encoder, texts, corpus, options.precision)

    def ranked(queries: Tensor, corpus: Tensor) -> list[TaskResult]:
        if candidates is not None:
            return rerank_embeddings(retrieval_set, split, candidates, queries, corpus)
        return evaluate_embeddings(retrieval_set, queries, corpus, pivot=options.pivot, device=encoder.device)

    results = ranked(queries, corpus)
    smaller = {
        variant.name: ranked(*compress(variant, queries, corpus, normalise=encoder.normalise))
        for variant in options.variants
    }
    scores = [
        _task_scores(result, {name: found[number].scores["nDCG@10"] for name, found in smaller.items()})
        for number, result in enumerate(results)
    ]
    if options.bm25:
        lexical = [rank_bm25(retrieval_set, task) for task in track(split.tasks, description="BM25")]
        scores = [replace(task, bm25=other.scores) for task, other in zip(scores, lexical, strict=True)]
    return list(zip(scores, results, strict=True))


def _task_scores(result: TaskResult, variants: dict[str, float]) -> TaskScores:
    return TaskScores(
        kind=result.task.kind,
        query_language=result.task.query_language,
        corpus_language=result.task.corpus_language,
        queries=len(result.task.query_indices),
        documents=len(result.task.document_indices),
        left_out_queries=result.task.left_out_queries,
        scores=result.scores,
        variants=variants or None,
    )


def embed(encoder: Encoders, texts: list[str], role: Role, options: MeasureOptions) -> Tensor:
    """Embeds texts with a progress bar, through the cache where there is one."""
    description = {"query": "Embedding queries", "document": "Embedding documents"}[role]
    if options.cache is None:
        return embed_texts(
            encoder,
            texts,
            role,
            token_budget=options.token_budget,
            precision=options.precision,
            description=description,
        )
    return embed_in_processes(
        encoder,
        texts,
        role,
        cache=options.cache,
        processes=options.processes,
        token_budget=options.token_budget,
        precision=options.precision,
        description=description,
    )


def settings_of(
    encoder: Encoders, options: MeasureOptions, split: str | None, candidates: str | None = None
) -> dict[str, Any]:
    """What ``metrics.json`` records of a model and the options in effect."""
    query, document = encoder.of("query").options, encoder.of("document").options
    return {
        "split": split,
        "pivot": options.pivot,
        "candidates": candidates,
        "query_prompt": query.query_prompt,
        "document_prompt": document.document_prompt,
        "pooling": query.pooling,
        "query_max_length": query.query_max_length,
        "document_max_length": document.document_max_length,
        "precision": options.precision,
        "device": str(encoder.device),
    }
