"""A plan in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_retrofit.planning.memory import LARGEST
from lit_retrofit.planning.plan import Plan, gigabytes
from lit_retrofit.planning.step_time import StepTime

_MEMORY = (
    "weights", "made_weights", "gradients", "optimizer", "kept_graphs", "frozen_outputs", "embeddings",
    "loss", "work", "total",
)  # fmt: skip
_TIME = ("forward", "recomputed", "backward", "loss", "update", "total")


def show(plan: Plan, console: Console) -> None:
    """Prints the plan.

    Args:
        plan: to be shown.
        console: where to print.
    """
    settings, texts, time = plan.settings, plan.texts, plan.time
    number = plan.parameters

    def say(line: str, style: str = "") -> None:
        console.print(Text(line, style))

    kind = "measured rates" if plan.measured else "a prediction"
    count = f"{settings.all_devices} × " if settings.all_devices > 1 else ""
    say(f"{plan.model} on {count}{settings.device}, {settings.precision}: {kind}", "bold")
    say(f"{number.total / 1e6:.1f}M parameters, {number.trainable / 1e6:.2f}M trained "
        f"({number.trainable_share:.1%})")  # fmt: skip
    say(f"a step: {settings.batch_size:,} queries of {texts.query_tokens:.0f} tokens, "
        f"{texts.documents_per_query:.2g} documents each of {texts.document_tokens:.0f} tokens "
        f"({texts.source})")  # fmt: skip
    if settings.all_devices > 1:
        say(f"each device: {settings.batch_size / settings.all_devices:,.0f} of these queries, against all "
            "documents; below, one device's memory and time")  # fmt: skip
    grid = Table.grid(padding=(0, 4, 0, 0))
    memory = [(name.replace("_", " "), gigabytes(getattr(plan.memory, name))) for name in _MEMORY]
    grid.add_row(_table("memory", memory), _table("time of a step", _times(time)))
    console.print(grid)
    say(plan.verdict, "green" if plan.memory.fits else "red")
    say(f"largest batch: {_queries(plan.largest_batch)}; with no text embedded twice: "
        f"{_queries(plan.largest_batch_kept)}")  # fmt: skip
    again = f"{time.recomputed_share:.0%} of the tokens embedded twice"
    say(f"{time.examples_per_hour:,.0f} queries per hour, {again}")
    for sentence in plan.assumptions:
        say(f"assumed: {sentence}", "dim")


def _times(time: StepTime) -> list[tuple[str, str]]:
    values = [(name, getattr(time, name)) for name in _TIME]
    return [(name, f"{value:.3g} s ({value / time.total:.0%})") for name, value in values]


def _queries(count: int) -> str:
    return "none" if count == 0 else f"{count:,} or more" if count >= LARGEST else f"{count:,} queries"


def _table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=0, show_header=False, show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    for name, value in rows:
        last = name == "total"
        table.add_row(Text(name), Text("  " + value), style="bold" if last else "")
    return table
