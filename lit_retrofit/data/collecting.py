"""Valid records gathered from one source: documents held once, contradictions told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lit_retrofit.data.records import Document, Record
from lit_retrofit.errors import UserError


@dataclass
class Collected:
    """The records so far; equal documents are held in memory once.

    Attributes:
        source: as the user named it.
        records: in the source's order.
        dropped_negatives: negatives left out because they equal a positive of their record.
    """

    source: str
    records: list[Record] = field(default_factory=list)
    dropped_negatives: int = 0
    _known: dict[str, tuple[Document, int]] = field(default_factory=dict)

    def add(self, record: Record, line: int) -> None:
        """Adds a record without the negatives that are none.

        Raises:
            UserError: a document's id stood for another text before.
        """
        record, dropped = drop_false_negatives(record)
        self.dropped_negatives += dropped
        positives = tuple(self._shared(document, line) for document in record.positives)
        negatives = tuple(self._shared(document, line) for document in record.negatives)
        self.records.append(replace(record, positives=positives, negatives=negatives))

    def _shared(self, document: Document, line: int) -> Document:
        known, first = self._known.setdefault(document.id, (document, line))
        if known.text != document.text:
            raise UserError(
                f"{self.source}:{line}: document id '{document.id}' has another text on line {first}; "
                "give every text its own id"
            )
        return known if known == document else document


def drop_false_negatives(record: Record) -> tuple[Record, int]:
    """Drops negatives that equal a positive of the record by id or text, with their scores.

    Returns:
        The record, the same one if nothing was to be dropped, and how many negatives were.
    """
    if not record.negatives:
        return record, 0
    ids = {document.id for document in record.positives}
    texts = {document.text for document in record.positives}
    kept = [i for i, n in enumerate(record.negatives) if n.id not in ids and n.text not in texts]
    dropped = len(record.negatives) - len(kept)
    if not dropped:
        return record, 0
    negatives = tuple(record.negatives[i] for i in kept)
    scores = tuple(record.negative_scores[i] for i in kept) if record.negative_scores else ()
    return replace(record, negatives=negatives, negative_scores=scores), dropped
