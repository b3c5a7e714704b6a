"""Training records chosen or turned for an arm, and models cut for it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from transformers import AutoModel

from lit_retrofit.data.capping import cap_records
from lit_retrofit.data.formats import read_records, write_records
from lit_retrofit.data.parallel import add_parallel_positives
from lit_retrofit.data.records import Document, Record
from lit_retrofit.errors import UserError
from lit_retrofit.model.lora import find_blocks
from lit_retrofit.model.source import resolve_model


@dataclass(frozen=True)
class Selection:
    """Which of the records, and what of them.

    Attributes:
        source: records: `train` (the sample) or `all` (all training pairs), or others made above.
        languages: only these.
        tasks: only these kinds of query.
        per_language: at most so many of each language, drawn by the seed.
        records: exactly so many, drawn by the seed; fewer are an error.
        pairs: `human`: queries as they are. `parallel`: the query is the page itself, its positive the same
            page in another language: translations, no questions.
        random_negatives: so many documents of the same language, of other groups, for each record.
        seed: of every draw.
    """

    source: str = "{train}"
    languages: tuple[str, ...] | list[str] = ()
    tasks: tuple[str, ...] | list[str] = ()
    per_language: int | None = None
    records: int | None = None
    pairs: Literal["human", "parallel"] = "human"
    random_negatives: int = 0
    seed: int = 0

    def write(self, name: str, source: Path, output: Path) -> None:
        """Selects the records of a file.

        Args:
            name: of the selection, for messages.
            source: a file of records.
            output: a JSONL file.

        Raises:
            UserError: there are too few.
        """
        found = read_records(source)[0]
        found = [r for r in found if not self.languages or r.language in self.languages]
        found = [r for r in found if not self.tasks or r.task in self.tasks]
        if self.pairs == "parallel":
            found = translations(found, random.Random(self.seed))
        if self.per_language is not None:
            found, _ = cap_records(found, self.per_language, self.seed)
        if self.records is not None and len(found) > self.records:
            chosen = set(random.Random(self.seed).sample(range(len(found)), self.records))
            found = [record for number, record in enumerate(found) if number in chosen]
        if not found or len(found) < (self.records or 0):
            raise UserError(
                f"prepare '{name}': {len(found)} records, {self.records or 1} asked for; ask for less"
            )
        if self.random_negatives:
            found = with_random_negatives(found, self.random_negatives, random.Random(self.seed))
        write_records(found, output, overwrite=True)


def translations(records: Sequence[Record], rng: random.Random) -> list[Record]:
    """A record for each page and language: the page as query, another language's version as positive."""
    pages: dict[str, Record] = {}
    for record in add_parallel_positives(records):
        pages.setdefault(record.positives[0].id, record)
    found = []
    for record in pages.values():
        own, *others = record.positives
        if others:
            other = rng.choice(others)
            turned = replace(record, query=own.text, language=own.language, positives=(other,), negatives=())
            found.append(replace(turned, positive_scores=(), negative_scores=(), task="parallel"))
    return found


def with_random_negatives(records: Sequence[Record], count: int, rng: random.Random) -> list[Record]:
    """Gives each record documents of its positive's language that belong to other groups and texts."""
    pools: dict[str | None, dict[str, tuple[Document, str | None]]] = {}
    for record in records:
        document = record.positives[0]
        pools.setdefault(document.language, {})[document.id] = (document, record.group)
    lists = {language: list(pool.values()) for language, pool in pools.items()}
    return [_with_negatives(record, lists[record.positives[0].language], count, rng) for record in records]


def _with_negatives(
    record: Record, pool: Sequence[tuple[Document, str | None]], count: int, rng: random.Random
) -> Record:
    own = {document.text for document in record.positives}
    drawn = rng.sample(pool, min(len(pool), 4 * count))  # some are the record's own
    fit = [d for d, group in drawn if d.text not in own and (group is None or group != record.group)]
    return replace(record, negatives=tuple(fit[:count]), positive_scores=(), negative_scores=())


@dataclass(frozen=True)
class Cut:
    """The base model without its upper blocks: cheap enough for large batches.

    Attributes:
        layers: blocks that are left.
    """

    layers: int

    def write(self, model: str, output: Path) -> None:
        """Writes the cut model as a sentence-transformers folder."""
        source = resolve_model(model)
        shutil.copytree(source, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
        backbone = AutoModel.from_pretrained(source)
        _, blocks = find_blocks(backbone)
        del blocks[self.layers :]
        backbone.config.num_hidden_layers = self.layers
        backbone.save_pretrained(output)
