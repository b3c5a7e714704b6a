"""A record that is not yet trusted: what a generator wrote, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from lit_retrofit.data.records import Document, Record, text_id


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a record was made; enough to make it again.

    Attributes:
        generator: rules, endpoint or local.
        model: its name, of a local one with what version it was; or the version of the rules.
        template: what was asked for.
        seed: of this record.
        slots: what was drawn for the template.
        requests: keys of the requests in the log of answers.
    """

    generator: str
    model: str
    template: str
    seed: int
    slots: Mapping[str, str] = field(default_factory=dict)
    requests: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As a record keeps it."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Draft:
    """A query for a document.

    Attributes:
        query: as written.
        language: that the query was to be in.
        positive: the document that it was written for.
        group: of the document.
        provenance: how it was made.
        negatives: documents written as hard negatives.
        own_words: the query is a part of the document by design: the filters for copied queries and for
            languages, which have nothing to find in it, pass over it.
    """

    query: str
    language: str
    positive: Document
    group: str
    provenance: Provenance
    negatives: tuple[Document, ...] = ()
    own_words: bool = False

    def to_record(self, source: str) -> Record:
        """The training record."""
        template = self.provenance.template
        return Record(
            id=f"{source}:{template}:{text_id(self.query + chr(0) + self.positive.id).removeprefix('text:')}",
            query=self.query,
            positives=(self.positive,),
            negatives=self.negatives,
            language=self.language,
            task=template,
            source=source,
            group=self.group,
            provenance=self.provenance.to_json(),
        )
