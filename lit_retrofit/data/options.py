"""What a user may say about the data: where it is, how sources are mixed, how batches are drawn."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from lit_retrofit.errors import UserError

Key = Literal["source", "task", "language", "length"]


@dataclass(frozen=True)
class SourceOptions:
    """One training source with settings of its own. None means: as for every source.

    Attributes:
        path: a file, a BEIR folder, ``hf:owner/name`` or ``quickstart:train``. With `stream`, a parquet or
            Arrow file, or a pattern such as ``data/part-*.parquet``.
        name: in reports and messages; the path by default.
        weight: its share of the queries, relative to the other sources' weights. Give all sources one, or
            none.
        in_batch_negatives: false where other queries' documents may answer too (NLI, classification): a
            query is then told apart from its own hard negatives alone.
        temperature: of the loss, for this source's batches; needs batches homogeneous by source.
        query_prompt: text before each query, instead of the model's.
        document_prompt: text before each document, instead of the model's.
        negatives: hard negatives drawn per query, instead of `data.sampling.negatives`.
        max_per_language: at most this many records of each language, chosen by `data.options.seed`.
        format: the convention of the file, instead of `data.options.format`.
        stream: read the file anew in each epoch instead of holding its records in memory.
        shuffle_buffer: rows of a streamed source that are in memory, and in random order, at a time.
    """

    path: str
    name: str | None = None
    weight: float | None = None
    in_batch_negatives: bool = True
    temperature: float | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    negatives: int | None = None
    max_per_language: int | None = None
    format: str | None = None
    stream: bool = False
    shuffle_buffer: int = 65536

    @property
    def label(self) -> str:
        """The source's name in reports and messages."""
        return self.name or self.path


@dataclass(frozen=True)
class DataOptions:
    """Where the data is and how it is prepared.

    Attributes:
        train: training records: files, BEIR folders or hub data sets (``hf:owner/name``), each alone or with
            settings of its own (`SourceOptions`); ``quickstart:train`` is the embedded set.
        validation: a BEIR folder or records; by default a part of the training records is split off.
        test: a BEIR folder for the `test` command; ``quickstart:test`` is the embedded one.
        predict: a JSONL, CSV or parquet file with a field `text`, for the `predict` command.
        predict_role: embed those texts as query or document.
        format: the convention of the training files, where it cannot be told from their fields.
        skip_invalid: skip and count broken records instead of stopping at the first.
        validation_share: of the groups (pages with all their translations) split off for validation.
            Streamed sources give none.
        parallel_positives: give each query the other languages' versions of its document as further
            positives, where records name their group.
        teacher: a folder of another model's embeddings of the training texts, see docs/data.md.
        training_document_length: cut documents to this many tokens in training only, where the model takes
            more: a step then costs less, and the trained model still embeds whole documents.
        token_budget: padded tokens of a micro-batch. On a CPU 4096 took 14 to 25 % less time than 8192, whose
            tensors no longer come out of the heap; a GPU wants more.
        workers: processes that draw and tokenize; 0 does it in the main process.
        seed: of the split, and of what `max_per_language` keeps.
    """

    train: tuple[str | SourceOptions, ...] = ()
    validation: str | None = None
    test: str | None = None
    predict: str | None = None
    predict_role: str = "document"
    format: str | None = None
    skip_invalid: bool = False
    validation_share: float = 0.05
    parallel_positives: bool = True
    teacher: str | None = None
    training_document_length: int | None = None
    token_budget: int = 4096
    workers: int = 0
    seed: int = 0

    @property
    def sources(self) -> tuple[SourceOptions, ...]:
        """Every training source with its settings."""
        return tuple(SourceOptions(entry) if isinstance(entry, str) else entry for entry in self.train)


@dataclass(frozen=True)
class SamplingOptions:
    """How batches are drawn.

    Attributes:
        batch_size: queries per step, of all devices together: each takes batch_size / devices of them.
        negatives: hard negatives drawn per query, anew in each epoch.
        neighbours: records brought into a query's batch because their positive is one of its mined negatives.
            They are hard negatives that cost nothing: the batch embeds them anyway.
        cross_lingual: share of queries whose positive is drawn from another language, where the
            record's group has one.
        homogeneous: what all queries of a batch have in common: any of source, task, language and length
            (of the positive, in classes that double); nothing by default.
        homogeneous_share: of a batch, where not all of it is to be homogeneous; the rest is of any kind.
        negatives_within: only documents of queries with the same source, task or language (any of these) are
            a query's negatives; all by default.
        alpha: what is mixed (sources, or what `homogeneous` tells apart) comes with a probability
            proportional to its size to this power. 1 shows every record once per epoch.
        seed: of the order and of every draw.
    """

    batch_size: int = 64
    negatives: int = 1
    neighbours: int = 0
    cross_lingual: float = 0.0
    homogeneous: tuple[Key, ...] = ()
    homogeneous_share: float = 1.0
    negatives_within: tuple[Key, ...] = ()
    alpha: float = 1.0
    seed: int = 0


def check_options(options: DataOptions) -> None:
    """Refuses values that are out of range.

    Raises:
        UserError: which option, and what it may be.
    """
    if options.token_budget < 1:
        raise UserError(f"data.options.token_budget is {options.token_budget}; it must be at least 1")
    if options.workers < 0:
        raise UserError(f"data.options.workers is {options.workers}; it must be at least 0")
    if not 0 <= options.validation_share < 1:
        raise UserError(
            f"data.options.validation_share is {options.validation_share}; it is a share, 0 to below 1"
        )
    for source in options.sources:
        _check_source(source)
    _check_names_and_weights(options.sources)


def _check_source(source: SourceOptions) -> None:
    if source.path.lstrip().startswith(("{", "[")):  # what the command line could not parse is left as text
        raise UserError(
            f"data.options.train: {source.path:.200} has a setting that a source does not know, or a value "
            f"of the wrong type; a source has {', '.join(SourceOptions.__dataclass_fields__)}"
        )
    where = f"data.options.train: source '{source.label}'"
    for name in ("weight", "temperature"):
        value = getattr(source, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"{where}: {name} is {value}; it must be above 0")
    for name, lowest in (("negatives", 0), ("max_per_language", 1), ("shuffle_buffer", 1)):
        value = getattr(source, name)
        if value is not None and value < lowest:
            raise UserError(f"{where}: {name} is {value}; it must be at least {lowest}")


def _check_names_and_weights(sources: tuple[SourceOptions, ...]) -> None:
    twice = [name for name, count in Counter(source.label for source in sources).items() if count > 1]
    if twice:
        raise UserError(f"data.options.train names '{twice[0]}' twice; leave one out, or give each a name")
    without = [source.label for source in sources if source.weight is None]
    if without and len(without) < len(sources):
        raise UserError(
            f"data.options.train: source '{without[0]}' has no weight, but others have; give each one, or "
            "none"
        )


def check_sampling(sampling: SamplingOptions, sources: tuple[SourceOptions, ...] = ()) -> None:
    """Refuses ranges that would otherwise end in a wrong batch, or in a traceback far from here.

    Raises:
        UserError: which option, and what it may be.
    """
    for name, lowest in (("batch_size", 1), ("negatives", 0), ("neighbours", 0), ("seed", 0)):
        value = getattr(sampling, name)
        if value < lowest:
            raise UserError(f"data.sampling.{name} is {value}; it must be at least {lowest}")
    if not 0 <= sampling.cross_lingual <= 1:
        raise UserError(f"data.sampling.cross_lingual is {sampling.cross_lingual}; it is a share, 0 to 1")
    if not 0 < sampling.homogeneous_share <= 1:
        raise UserError(
            f"data.sampling.homogeneous_share is {sampling.homogeneous_share}; it is a share, above 0 to 1"
        )
    if sampling.homogeneous_share < 1 and not sampling.homogeneous:
        raise UserError(
            "data.sampling.homogeneous_share is given, but not what is shared; set data.sampling.homogeneous"
        )
    if not 0 <= sampling.alpha <= 1:
        raise UserError(f"data.sampling.alpha is {sampling.alpha}; it must be 0 (all alike) to 1 (by size)")
    weighted = any(source.weight is not None for source in sources)
    if weighted and sampling.alpha != 1:
        raise UserError("data.sampling.alpha and weights of sources exclude each other; leave one out")
    _check_temperatures(sampling, sources)


def _check_temperatures(sampling: SamplingOptions, sources: tuple[SourceOptions, ...]) -> None:
    own = [source.label for source in sources if source.temperature is not None]
    pure = "source" in sampling.homogeneous and sampling.homogeneous_share == 1
    if own and len(sources) > 1 and not pure:
        raise UserError(
            f"source '{own[0]}' has its own temperature, so a batch must be of one source; set "
            "data.sampling.homogeneous to [source], and homogeneous_share to 1"
        )
