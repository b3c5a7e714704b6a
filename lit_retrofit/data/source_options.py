"""One training source: where it is, how its columns are read, and how it takes part in a mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from lit_retrofit.errors import UserError

LANGUAGE = "{language}"  # in a path or label: each of the source's languages in turn
_LABELS = ("language", "document_language", "task")


@dataclass(frozen=True)
class SourceOptions:
    """One training source with settings of its own. None means: as for every source.

    Attributes:
        path: a file, a BEIR folder, ``hf:owner/name``, ``quickstart:train``, or ``source:NAME`` for a named
            source of configs/data/sources, whose settings those given here replace. With `stream`, a parquet
            or Arrow file, a pattern such as ``data/part-*.parquet``, or a hub data set.
        name: in reports and messages; the path by default.
        weight: its share of the queries, relative to the other sources' weights. Give all sources one, or
            none.
        in_batch_negatives: false where other queries' documents may answer too (NLI, classification): a
            query is then told apart from its own hard negatives alone. True by default.
        temperature: of the loss, for this source's batches; needs batches homogeneous by source.
        query_prompt: text before each query, instead of the model's.
        document_prompt: text before each document, instead of the model's.
        instruction: what the source's queries ask for, in a sentence; see `data.options.instruction_prompt`.
        negatives: hard negatives drawn per query, instead of `data.sampling.negatives`.
        cross_lingual: share of queries whose positive is drawn from another language, instead of
            `data.sampling.cross_lingual`.
        max_per_language: at most this many records of each language, chosen by `data.options.seed`.
        format: the convention of the file, instead of `data.options.format`.
        fields: which column has which field, where columns have other names: ``{query: question}``. A dotted
            name leads into objects and lists of them: ``{positive: translation.de}``.
        languages: one part of the source per language: ``{language}`` in the path stands for each of these
            values in turn (``{ar: arabic, de: german}``), and the key is the language of its records.
        language: of records that name none; may be ``{language}``, which it is by default where there are
            several.
        document_language: of their documents, where it is not the query's; may be ``{language}``.
        task: kind of query of the records that name none.
        stream: read the file anew in each epoch instead of holding its records in memory.
        shuffle_buffer: rows of a streamed source that are in memory, and in random order, at a time.
    """

    path: str
    name: str | None = None
    weight: float | None = None
    in_batch_negatives: bool | None = None
    temperature: float | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    instruction: str | None = None
    negatives: int | None = None
    cross_lingual: float | None = None
    max_per_language: int | None = None
    format: str | None = None
    fields: dict[str, str] = field(default_factory=dict, hash=False)
    languages: dict[str, str] = field(default_factory=dict, hash=False)
    language: str | None = None
    document_language: str | None = None
    task: str | None = None
    stream: bool = False
    shuffle_buffer: int = 65536

    @property
    def label(self) -> str:
        """The source's name in reports and messages."""
        return self.name or self.path

    @property
    def private(self) -> bool:
        """Whether a query is told apart from its own hard negatives alone."""
        return self.in_batch_negatives is False

    def parts(self) -> list[SourceOptions]:
        """The source of each language, or the source itself where it is not made of several."""
        if not self.languages:
            return [self]
        labels = {name: getattr(self, name) for name in _LABELS}
        labels["language"] = self.language or LANGUAGE
        return [
            replace(
                self,
                path=self.path.replace(LANGUAGE, value),
                languages={},
                **{name: label and label.replace(LANGUAGE, key) for name, label in labels.items()},
            )
            for key, value in self.languages.items()
        ]


def check_source(source: SourceOptions) -> None:
    """Refuses values that are out of range.

    Raises:
        UserError: which setting of which source, and what it may be.
    """
    # what the command line could not parse is left as text
    if source.path.lstrip().startswith(("{", "[")) and not source.path.startswith(LANGUAGE):
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
    if source.cross_lingual is not None and not 0 <= source.cross_lingual <= 1:
        raise UserError(f"{where}: cross_lingual is {source.cross_lingual}; it is a share, 0 to 1")
    _check_languages(source, where)


def _check_languages(source: SourceOptions, where: str) -> None:
    named = [name for name in ("path", *_LABELS) if LANGUAGE in (getattr(source, name) or "")]
    if named and not source.languages:
        raise UserError(f"{where}: {named[0]} has {LANGUAGE}, and languages is not given; list them")
    if source.languages and "path" not in named:
        raise UserError(f"{where}: languages is given, but path has no {LANGUAGE}; write it in the path")
    if source.languages and source.stream:
        raise UserError(
            f"{where}: several languages cannot be streamed as one source; give each a source of its own"
        )
