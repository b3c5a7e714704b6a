"""Two processes of a Trainer over gloo: evaluation sharded, stops agreed upon, a death noticed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Both processes do every part in turn, since most of their time is start-up; the last kills one."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank),
            "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        log = (folder / f"{rank}.log").open("w")
        command = [sys.executable, str(SCRIPT), str(folder)]
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        started[1].wait(timeout=120)
        died = time.monotonic()
        started[0].wait(timeout=60)
    finally:
        for process in started:
            process.kill()
    assert started[1].returncode == -signal.SIGKILL, (folder / "1.log").read_text()
    assert time.monotonic() - died < 30
    return folder


def found(folder: Path, part: str) -> list:
    return [json.loads((folder / part / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_evaluation_is_sharded_and_every_rank_logs_the_same(folder) -> None:
    (scores, incomplete), other = found(folder, "validate")
    assert other == [scores, incomplete]
    # By hand, with the same vectors: every query's document is the one of its number.
    noise = [torch.randn(11, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1, 9)]
    queries, documents = (torch.nn.functional.normalize(noise[2] + part, dim=1) for part in noise[:2])
    similarity = queries @ documents.T
    ranks = 1 + (similarity > similarity.diagonal()[:, None]).sum(1).double()
    ndcg = (1 / torch.log2(1 + ranks)).where(ranks <= 10, 0.0).mean().item()
    assert 0 < ndcg < 1
    assert scores["val/nDCG@10"] == pytest.approx(ndcg, abs=1e-6)
    mrr = (1 / ranks).where(ranks <= 10, 0.0).mean().item()
    assert scores["val/all/MRR@10"] == pytest.approx(mrr, abs=1e-6)
    # Rows that nobody embedded end both ranks.
    assert "only a part of tiny was embedded" in incomplete


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_after_the_same_step(folder) -> None:
    first, second = found(folder, "signal")
    assert first[0] == second[0] == "Interrupted"
    assert "after step 2" in first[1] and second[1] == ""  # one line, by the first rank
    saved = torch.load(folder / "signal" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2


@pytest.mark.slow
def test_a_loss_of_one_rank_that_is_not_a_number_stops_both(folder) -> None:
    for kind, told in found(folder, "nan"):
        assert kind == "UserError" and "the loss of step 2 is nan" in told
    report = json.loads((folder / "nan" / "nan_batch.json").read_text())
    assert report["record_ids"] == ["rank 0 step 2", "rank 1 step 2"]


@pytest.mark.slow
def test_the_death_of_one_rank_ends_the_other(folder) -> None:
    kind, told = json.loads((folder / "death" / "0.json").read_text())
    assert kind == "UserError"
    assert "another process of the run has ended" in told and "\n" not in told
