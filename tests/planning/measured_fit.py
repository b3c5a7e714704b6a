"""Run as a script: bytes at the peak of `fit` beyond what a fit of a tiny model leaves behind."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path

from lit_retrofit.cli import main


def status(field: str) -> int:
    """Bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


if __name__ == "__main__":
    tiny, words = sys.argv[1], sys.argv[2:]
    # loads and compiles whatever a first step loads
    smaller = ["--model.encoder.model", tiny, "--data.sampling.batch_size", "4", "--trainer.max_steps", "1"]
    assert main(["fit", *words, *smaller, "--output", words[words.index("--output") + 1] + "-tiny"]) == 0
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status("VmRSS")
    assert main(["fit", *words]) == 0
    print("peak", status("VmHWM") - before)
