"""Kernels against their peers.

    python -m benchmarks.kernels loss
    python -m benchmarks.kernels neighbours

Runs unchanged on a CPU and on a GPU, with whatever peers are installed; what does not run is named with
the reason. Writes Markdown, JSON and plots. On a busy machine the figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.kernels import loss, neighbours, plots, report

COMMANDS = {"loss": loss, "neighbours": neighbours}
RESULTS = Path("benchmarks/results")


def main() -> None:
    """Measures, then writes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
        command.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU")
        command.add_argument("--rounds", type=int, help="counted rounds at least")
        command.add_argument(
            "--longest", type=float, default=60.0,
            help="skip what would take more seconds for its products alone",
        )  # fmt: skip
        command.add_argument("--quick", action="store_true", help="tiny sizes, to try the benchmark")
        command.add_argument(
            "--output", type=Path, default=RESULTS / f"kernels_{name}", help="path without ending"
        )
        module.add_arguments(command)
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    results = COMMANDS[arguments.command].run(arguments)
    arguments.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    pictures = plots.draw(results, arguments.output)
    text = report.markdown(results, pictures)
    arguments.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
