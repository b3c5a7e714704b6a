"""What one query found, for people (tables) and for programs (a JSON line)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_retrofit.side_by_side.ranking import Hit

EXCERPT = 240
_BOTH = 100  # columns from which two tables stand beside each other


def show(console: Console, query: str, names: Sequence[str], found: Sequence[Sequence[Hit]]) -> None:
    """Prints each model's hits; beside each other where the terminal is wide enough.

    Args:
        console: where to.
        query: as it was typed.
        names: of the models.
        found: their hits.
    """
    console.print()
    console.print(Text(query, style="bold"))
    tables = [_table(name, hits, len(names) > 1) for name, hits in zip(names, found, strict=True)]
    if len(tables) == 2:
        same = len({hit.document.id for hit in found[0]} & {hit.document.id for hit in found[1]})
        console.print(f"{same} of {len(found[0])} documents are the same", style="dim", highlight=False)
    if len(tables) == 2 and console.width >= _BOTH:
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        for _ in tables:
            grid.add_column(ratio=1)
        grid.add_row(*tables)
        console.print(grid)
    else:
        for table in tables:
            console.print(table)


def _table(name: str, hits: Sequence[Hit], compared: bool) -> Table:
    table = Table(title=Text(name), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("", justify="right")
    table.add_column("score", justify="right")
    if compared:
        table.add_column("other", justify="right")
    table.add_column("document", ratio=1)
    for hit in hits:
        # New to the other model's list, it is what the two disagree about.
        style = "bold" if hit.other_rank is not None and hit.other_rank > len(hits) else ""
        cells = [str(hit.rank), f"{hit.score:.3f}"]
        cells += [f"#{hit.other_rank}"] if hit.other_rank is not None else []
        table.add_row(*(Text(cell, style) for cell in cells), _excerpt(hit))
    return table


def _excerpt(hit: Hit) -> Text:
    text = " ".join(hit.document.text.split())
    shown = text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"
    language = f"[{hit.document.language}] " if hit.document.language else ""
    return Text.assemble((language, "cyan"), shown)


def json_line(query: str, names: Sequence[str], found: Sequence[Sequence[Hit]]) -> str:
    """The same as one JSON object, with whole texts."""
    models = [
        {
            "model": name,
            "hits": [
                {
                    "rank": hit.rank,
                    "score": round(hit.score, 6),
                    "other_rank": hit.other_rank,
                    "id": hit.document.id,
                    "language": hit.document.language,
                    "text": hit.document.text,
                }
                for hit in hits
            ],
        }
        for name, hits in zip(names, found, strict=True)
    ]
    return json.dumps({"query": query, "models": models}, ensure_ascii=False)
