"""Throughput of one rank and of several, and where a step's time goes."""

from __future__ import annotations

import math

import pytest
import torch

from lit_retrofit.training.callbacks.step_monitor import _figures


def test_ranks_add_up_and_the_slowest_counts() -> None:
    # queries, tokens, padded, seconds, forward, backward, waited, memory
    ranks = torch.tensor([[8, 90, 100, 2.0, 0.5, 1.0, 0.1, 3], [4, 60, 100, 4.0, 1.0, 2.0, 0.3, 2]])
    figures = _figures(ranks.double())
    expected = {
        "train/queries_per_second": 12 / 4, "train/tokens_per_second": 150 / 4, "train/padding_share": 0.25,
        "train/peak_memory_gb": 3, "train/forward_share": 0.25, "train/backward_share": 0.5,
        "train/data_seconds": 0.3,
    }  # fmt: skip
    assert figures == pytest.approx(expected, rel=1e-6)
    ranks[1, 6] = math.nan
    assert "train/data_seconds" not in _figures(ranks.double())


def test_a_run_logs_its_figures(run) -> None:
    assert run("--trainer.max_epochs", "2") == 0
    for key in ("queries_per_second", "tokens_per_second", "peak_memory_gb"):
        assert len(run.column(f"train/{key}")) == 6
        assert all(value > 0 for value in run.column(f"train/{key}"))
    parts = zip(run.column("train/forward_share"), run.column("train/backward_share"), strict=True)
    assert all(0 < forward < 1 and 0 < backward < 1 and forward + backward < 1 for forward, backward in parts)
    assert len(run.column("train/data_seconds")) == 6
    assert run("--trainer.max_epochs", "1", "--save_minutes", "0", name="saving") == 0
    # A checkpoint between two steps is no waiting for data: the first step's figure stands.
    assert len(set(run.column("train/data_seconds", "saving"))) == 1
