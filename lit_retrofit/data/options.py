"""What a user may say about the data: where it is, how sources are mixed, how batches are drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from lit_retrofit.data.catalogue import resolve_source
from lit_retrofit.data.source_options import SourceOptions as SourceOptions
from lit_retrofit.data.source_options import check_source
from lit_retrofit.errors import UserError

Key = Literal["source", "task", "language", "length"]
INSTRUCTION = "{instruction}"


@dataclass(frozen=True)
class DataOptions:
    """Where the data is and how it is prepared.

    Attributes:
        train: training records: files, BEIR folders, hub data sets (``hf:owner/name``) or named sources
            (``source:NAME``), each alone or with settings of its own (`SourceOptions`);
            ``quickstart:train`` is the embedded set.
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
        instruction_prompt: for models that take an instruction, the prompt of queries from sources that have
            one, with ``{instruction}`` where that goes; the other sources keep the model's prompt.
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
    instruction_prompt: str | None = None
    teacher: str | None = None
    training_document_length: int | None = None
    token_budget: int = 4096
    workers: int = 0
    seed: int = 0

    @property
    def sources(self) -> tuple[SourceOptions, ...]:
        """Every training source with its settings; named ones with those of their files.

        Raises:
            UserError: no source has this name.
        """
        entries = (SourceOptions(entry) if isinstance(entry, str) else entry for entry in self.train)
        return tuple(self._instructed(resolve_source(source)) for source in entries)

    def _instructed(self, source: SourceOptions) -> SourceOptions:
        if self.instruction_prompt is None or source.instruction is None or source.query_prompt is not None:
            return source
        prompt = self.instruction_prompt.replace(INSTRUCTION, source.instruction)
        return replace(source, query_prompt=prompt)


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
    if options.instruction_prompt is not None and INSTRUCTION not in options.instruction_prompt:
        raise UserError(
            f"data.options.instruction_prompt has no {INSTRUCTION}; write it where the instruction goes"
        )
    for source in options.sources:
        check_source(source)
    _check_names_and_weights(options.sources)


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
