"""What is printed of made records: texts of others, which must not act on the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from lit_retrofit.data.records import Document, Record
from lit_retrofit.synthesis.filters import Drops
from lit_retrofit.synthesis.summary import SynthesisSummary, counts_of, pick_examples, show

WILD = "a [bold] text\x1b[2J that \u202eturns"


def test_no_text_acts_on_the_terminal():
    document = Document("d", WILD + " and is long" * 1000, WILD)
    records = [Record("r", WILD, (document,), language=WILD, task="question")]
    drops = Drops()
    drops.note(WILD + "x" * 10_000_000)
    summary = SynthesisSummary(
        seconds=1.0, generator="rules", model="rules 1", documents={WILD: 1}, left_out={}, written=2,
        dropped={"duplicate": drops}, kept=counts_of([WILD]), templates={"question": 1}, negatives=0,
        asked=None, examples=pick_examples(records), output="out.jsonl",
    )  # fmt: skip
    file = io.StringIO()
    show(summary, Console(file=file, width=300))
    text = file.getvalue()
    assert "\x1b" not in text and "\u202e" not in text
    assert text.count("a [bold] text<U+001B>[2J that <U+202E>turns") == 4  # three cells and a count
    assert max(len(example["document"]) for example in summary.examples) < 200
    assert max(map(len, drops.examples)) < 400
