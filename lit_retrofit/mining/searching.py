"""From the names of miners and a scorer to the negatives of a pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lit_retrofit.data.teacher import write_teacher
from lit_retrofit.errors import UserError
from lit_retrofit.mining.cached_scores import CachedCrossEncoder
from lit_retrofit.mining.exact import ExactSearch
from lit_retrofit.mining.find import Finding, find_negatives
from lit_retrofit.mining.judges import CrossEncoderJudge, EncoderJudge, Judge, LexicalJudge
from lit_retrofit.mining.miners import DenseMiner, LexicalMiner, Miner
from lit_retrofit.mining.pool import Pool
from lit_retrofit.mining.propose import propose_negatives
from lit_retrofit.mining.rules import MiningRules
from lit_retrofit.model.cross_encoder import CrossEncoder
from lit_retrofit.model.device import Precision
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.retrieval.approximate import ApproximateIndex, IndexName, choose_index, sample
from lit_retrofit.retrieval.search import Backend
from lit_retrofit.retrieval.workers import embed_in_processes

BM25 = "bm25"


@dataclass(frozen=True)
class SearchOptions:
    """How candidates are found and scored.

    Attributes:
        miners: names of models, or bm25; their rankings are fused. The first model's similarity is what the
            rules compare, unless there is a cross-encoder or a teacher.
        cross_encoder: a model that scores the candidates anew.
        teacher: an embedding model that scores the candidates anew.
        teacher_embeddings: a folder for the teacher's embeddings of all texts.
        candidates: how many of the fused ranking are scored for a query; at least the rules' depth.
        index: how the embeddings are searched.
        backend: of the exact search.
        settings: of the first miner's encoder, as `load_encoder` takes them.
        max_length: of every encoder; its own by default.
        cache: folder of embeddings and of a cross-encoder's scores.
        processes: that embed.
        precision: of all models.
        token_budget: tokens a model works on at a time; None for as many as suit the device.
        device: of all models and of the search.
        seed: of an index.
    """

    miners: tuple[str, ...]
    cross_encoder: str | None
    teacher: str | None
    teacher_embeddings: Path | None
    candidates: int
    index: IndexName
    backend: Backend
    settings: dict[str, Any] = field(compare=False)
    max_length: int | None
    cache: Path
    processes: int
    precision: Precision
    token_budget: int | None
    device: torch.device
    seed: int

    def check(self, rules: MiningRules) -> None:
        """Refuses options that do not go together, before any work.

        Raises:
            UserError: they do not.
        """
        twice = next((name for name in self.miners if self.miners.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"miner '{twice}' is named twice; name each one once, the model's own included")
        if self.cross_encoder is not None and self.teacher is not None:
            raise UserError("cross_encoder and teacher both score the candidates; give one of them")
        if self.teacher_embeddings is not None and self.teacher is None:
            raise UserError("teacher_embeddings are those of a teacher; name one with teacher")
        if self.candidates < 1:
            raise UserError(f"candidates is {self.candidates}; give 1 or more")
        if self.scored_by == BM25 and rules.max_score is not None:
            raise UserError("max_score is of a similarity, and bm25 has none; leave it out or name a model")

    @property
    def scored_by(self) -> str:
        """What gives the scores that the rules compare and that the records keep."""
        models = [name for name in self.miners if name != BM25]
        return self.cross_encoder or self.teacher or (models[0] if models else BM25)


@dataclass(frozen=True, slots=True)
class Found:
    """The result of `search_pool`.

    Attributes:
        findings: for each query of the pool.
        drops: see `count_drops`.
        examined: how many candidates each query had, at most.
        recall: for each miner with an index, the share that it finds of the exact search's candidates, both
            in the scope of the pool.
    """

    findings: list[Finding]
    drops: dict[str, int]
    examined: int
    recall: dict[str, float]


def search_pool(
    pool: Pool, rules: MiningRules, options: SearchOptions, tell: Callable[[str], None] = lambda line: None
) -> Found:
    """Finds the negatives of a pool's queries.

    One model alone is searched exactly and as deep as its rules demand. Otherwise miners propose a number of
    candidates, among which the rules choose: in the order of the scores where there is a scorer, or one model
    with an index; else in the fused order.

    Args:
        pool: see `Pool`.
        rules: what a negative must satisfy.
        options: see `SearchOptions`.
        tell: called with a line when there is something to say.

    Raises:
        UserError: a model cannot be loaded, an index does not fit, or embeddings or scores cannot be kept.
    """
    candidates = max(options.candidates, rules.depth)
    # Before the texts are embedded, which may take hours: its name may be wrong.
    cross_encoder = None if options.cross_encoder is None else _cross_encoder(options.cross_encoder, options)
    dense: dict[str, ExactSearch] = {}
    indexes: dict[str, ApproximateIndex] = {}
    recall: dict[str, float] = {}
    for name in options.miners:
        if name == BM25:
            continue
        dense[name] = _embedded(pool, name, options, options.settings if name == options.miners[0] else {})
        kind = choose_index(options.index, len(pool.documents))
        if kind != "exact":
            index = ApproximateIndex(dense[name].documents, kind, device=options.device, seed=options.seed)
            recall[name] = _tuned(index, dense[name], candidates, options.seed)
            indexes[name] = index
            within = "" if pool.scope == "all" else f" (pool '{pool.scope}')"
            tell(
                f"{name}: index {kind}, {index.probes} of {index.lists} lists: finds {recall[name]:.3f} of "
                f"the {candidates} nearest documents of an exact search{within}"
            )
    rescored = options.cross_encoder is not None or options.teacher is not None
    alone = len(options.miners) == 1
    if alone and dense and not indexes and not rescored:
        only = dense[options.miners[0]]
        findings, drops = find_negatives(
            pool, only.queries, only.documents, rules, backend=options.backend, device=options.device
        )
        return Found(findings, drops, rules.depth, recall)
    lexical = LexicalMiner(pool) if BM25 in options.miners else None
    miners: list[Miner] = [DenseMiner(exact, indexes.get(name)) for name, exact in dense.items()]
    scorer = None if cross_encoder is None else CachedCrossEncoder(cross_encoder, options.cache)
    judge = _judge(pool, options, dense, lexical, scorer)
    findings, drops = propose_negatives(
        pool,
        miners if lexical is None else [*miners, lexical],
        judge,
        rules,
        candidates=candidates,
        # An index ranks by its codes; the model's own scores, which the rules compare, rank better.
        reorder=rescored or (alone and bool(indexes)),
    )
    if scorer is not None and scorer.scored < scorer.asked:
        kept = scorer.asked - scorer.scored
        tell(f"{options.cross_encoder}: {kept} of {scorer.asked} scores were in the cache")
    if options.teacher_embeddings is not None and isinstance(judge, EncoderJudge):
        _write_teacher(options.teacher_embeddings, pool, judge)
    return Found(findings, drops, candidates, recall)


def _tuned(index: ApproximateIndex, exact: ExactSearch, candidates: int, seed: int) -> float:
    """Fits the index to a sample of the queries, each in its scope; the share found in the end."""
    miner, queries = DenseMiner(exact, index), sample(len(exact.queries), seed)
    depth = min(candidates, len(exact.documents))
    return index.tune(lambda: miner.propose(queries, depth), exact.nearest(queries, depth).indices)


def _embedded(pool: Pool, name: str, options: SearchOptions, settings: dict[str, Any]) -> ExactSearch:
    encoder = load_encoder(name, max_length=options.max_length, **settings).to(options.device)
    prefix = f"{name}: " if len(options.miners) > 1 or options.teacher else ""
    vectors = [
        embed_in_processes(
            encoder,
            texts,
            role,
            cache=options.cache,
            processes=options.processes,
            token_budget=options.token_budget,
            precision=options.precision,
            description=f"{prefix}Embedding {'queries' if role == 'query' else 'documents'}",
        )
        for role, texts in _texts(pool).items()
    ]
    return ExactSearch(pool, vectors[0], vectors[1], options.backend, options.device)


def _texts(pool: Pool) -> dict[Any, list[str]]:
    return {
        "query": [query.text for query in pool.queries],
        "document": [document.text for document in pool.documents],
    }


def _cross_encoder(name: str, options: SearchOptions) -> CrossEncoder:
    return CrossEncoder(
        name, device=options.device, precision=options.precision, token_budget=options.token_budget
    )


def _judge(
    pool: Pool,
    options: SearchOptions,
    dense: dict[str, ExactSearch],
    lexical: LexicalMiner | None,
    cross_encoder: CachedCrossEncoder | None,
) -> Judge:
    if cross_encoder is not None:
        return CrossEncoderJudge(pool, cross_encoder)
    scorer = options.scored_by
    if scorer == BM25 and lexical is not None:
        return LexicalJudge(lexical)
    exact = dense.get(scorer) or _embedded(pool, scorer, options, {})
    return EncoderJudge(exact.queries, exact.documents)


def _write_teacher(folder: Path, pool: Pool, judge: EncoderJudge) -> None:
    """Last and whole: a run that was stopped must leave no folder that the same command refuses."""
    written = folder if folder.exists() else folder.with_name(f".{folder.name}.partial")
    for role, texts in _texts(pool).items():
        vectors = judge.queries if role == "query" else judge.documents
        write_teacher(written, role, texts, vectors.numpy())
    written.replace(folder)
