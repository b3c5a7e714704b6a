"""The shipped ablations can run: their files are read, and every setting is one of `fit`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ablations.plan import check_settings, read_ablation

FILES = sorted(Path("configs/ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_ablation_is_accepted(path):
    ablation = read_ablation(path)
    names = {name: f"{name}.jsonl" for name in ("train", "all", "model", *ablation.prepare)}
    check_settings(ablation, names)
