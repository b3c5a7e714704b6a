"""A tiny run of the training benchmark: all implementations compute one gradient, the ratios are theirs."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.training.data import draw_batches
from lit_retrofit.data.records import Document, Record

ROOT = Path(__file__).parents[2]


# The tiny model's random weights are large: bf16's three digits are two after two blocks.
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "loss", "distance"), [("fp32", 1e-4, 1e-3), ("bf16", 0.05, 0.2)])
def test_all_train_the_same(bert_folder, tmp_path, precision: str, loss: float, distance: float) -> None:
    sizes = ["--memory-sizes", "6", "12"] if precision == "fp32" else []
    data = tmp_path / "pairs.jsonl"
    rows = [{"query": f"page {i}", "positive": f"text {i} " + "word " * (i % 6)} for i in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    subprocess.run(
        [sys.executable, "-m", "benchmarks.training", "--batch-sizes", "12", "--model", str(bert_folder),
         "--data", str(data), "--max-length", "20", "--rounds", "2", "--threads", "1", "--token-budget", "64",
         "--precision", precision, *sizes,
         "--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True,
    )  # fmt: skip
    results = json.loads((tmp_path / "out.json").read_text())
    for peer, found in results["gradients"]["peers"].items():
        assert found["loss"] == pytest.approx(results["gradients"]["loss"], rel=loss), peer
        assert found["relative_distance"] < distance, peer
        assert (found["relative_distance"] > 1e-3) == (precision == "bf16"), peer
    peers = results["sizes"]["12"]["peers"]
    assert set(results["ratios"]["12"]) == {f"vs_{peer}" for peer in peers if peer != "ours"}
    ours = peers["ours"]["seconds"]
    for peer, found in peers.items():
        assert found["losses"] == pytest.approx(peers["ours"]["losses"], rel=loss)
        assert found["peak_bytes"] > 1e7
        if peer != "ours":
            each = [theirs / own for theirs, own in zip(found["seconds"], ours, strict=True)]
            assert results["ratios"]["12"][f"vs_{peer}"] == pytest.approx(statistics.median(each))
    assert (tmp_path / "out.md").read_text().count("| lit-retrofit |") == 2
    if not sizes:
        return
    memory = results["memory"]["sizes"]
    assert set(memory) == {"6", "12"}
    assert memory["6"]["tokens"] < memory["12"]["tokens"]
    assert all(found["peak"] > 1e7 for found in memory.values())


def test_a_batch_holds_no_record_twice_and_needs_enough_of_them() -> None:
    records = [Record(str(i), f"q{i}", (Document(f"d{i}", f"d{i}"),)) for i in range(9)]
    first, second = draw_batches(records, 9, 2, seed=0)
    assert sorted(r.id for r in first) == sorted(r.id for r in second) == [str(i) for i in range(9)]
    assert first != second
    with pytest.raises(SystemExit, match="9 distinct pairs"):
        draw_batches(records, 10, 1, seed=0)
