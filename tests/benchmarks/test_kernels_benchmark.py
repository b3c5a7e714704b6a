"""A tiny run of the kernels' benchmark: what it writes is complete, and right where it can be checked."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from retrofit_kernels.cost import CARDS

from benchmarks.kernels import neighbour_jobs
from benchmarks.kernels.goals import goal
from benchmarks.kernels.loss_jobs import _distance, make_inputs
from benchmarks.kernels.loss_peers import PEERS
from benchmarks.kernels.neighbour_data import exact_rows, make_problem
from benchmarks.kernels.neighbour_filter import filtered
from benchmarks.kernels.neighbour_peers import BY_NAME as SEARCHES
from benchmarks.kernels.peers import Peer
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.timing import ratio, take_turns
from benchmarks.kernels.worker import JobFailed, run_job

ROOT = Path(__file__).parents[2]


def quick(command: str, output: Path, *peers: str) -> tuple[dict, str]:
    """Results and page of a quick run of these; the other peers are called below, in this process."""
    subprocess.run(
        [sys.executable, "-m", "benchmarks.kernels", command, "--quick", "--device", "cpu", "--threads", "1",
         "--output", str(output), "--peers", *peers],
        cwd=ROOT, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, check=True, capture_output=True,
    )  # fmt: skip
    return json.loads(output.with_suffix(".json").read_text()), output.with_suffix(".md").read_text()


@pytest.mark.slow
def test_loss(tmp_path):
    names = {"ours", "three_gemms", "eager"}
    results, page = quick("loss", tmp_path / "loss", *names)
    assert (results["layout"], results["kind"]) == (1, "loss")
    assert 1e-4 < results["matmul_tflops"] < 1e3
    assert set(results["peers"]) == names
    places = {(entry["shape"]["rows"], entry["pass"], entry["peer"]) for entry in results["timings"]}
    assert places == {
        (rows, name_of_pass, name)
        for rows, name_of_pass in [(256, "forward_backward"), (128, "forward_backward"), (128, "forward")]
        for name in names
    }
    for entry in results["timings"]:
        assert entry["skipped"] is None, entry
        assert 0 < entry["lowest"] <= entry["median"] <= entry["highest"]
        assert len(entry["seconds"]) >= results["settings"]["rounds"]
        shape = entry["shape"]
        work = (6 if entry["pass"] == "forward_backward" else 2) * math.prod(shape.values())
        rate = work / entry["median"] / (results["matmul_tflops"] * 1e12)
        assert entry["matmul_fraction"] == pytest.approx(rate)
    for entry in results["errors"]:
        assert set(entry["peers"]) == names - {"three_gemms"}
        for name, found in entry["peers"].items():
            # All of them compute the same function of the same inputs.
            assert max(found.values()) < 1e-4, (name, found)
        assert max(entry["peers"]["ours"].values()) < 5e-6
    goals = {entry["name"]: entry for entry in results["must_reach"]}
    spent = {e["peer"]: e["seconds"] for e in results["timings"] if e["shape"]["rows"] == 256}
    assert goals["eager_vs_ours"]["value"] == pytest.approx(ratio(spent["eager"], spent["ours"]))
    assert goals["ours_vs_three_gemms"]["value"] == pytest.approx(ratio(spent["ours"], spent["three_gemms"]))
    # Gradients and logits of 256 x 8192 x 32 in fp32 are 9 MB; twice that is no strip of 256 MB.
    assert 1e6 < goals["ours_extra_bytes"]["value"] < 40e6
    assert len(results["predictions"]) == 2 * len(CARDS)  # of two shapes
    assert all(entry["measured_seconds"] is None for entry in results["predictions"])
    assert "prediction, not measured" in page


@pytest.mark.slow
def test_neighbours(tmp_path):
    results, page = quick("neighbours", tmp_path / "neighbours", "ours", "faiss", "cuvs")
    assert (results["layout"], results["kind"]) == (1, "neighbours")
    ran = {name for name, peer in results["peers"].items() if peer["status"] == "run"}
    assert ran == {"ours", "faiss"}
    assert results["peers"]["cuvs"]["status"] == "not run: needs CUDA"
    for entry in results["timings"]:
        assert (entry["skipped"] is None) == (entry["peer"] in ran)
    (quality,) = results["quality"]
    assert set(quality["peers"]) == ran
    goals = {entry["name"]: entry for entry in results["must_reach"]}
    assert goals["ours_found"]["value"] == 1.0
    assert goals["ours_found"]["reached"] is True
    assert goals["ours_worst_gap"]["value"] == quality["peers"]["ours"]["worst_gap"]
    assert "What is found" in page


def test_what_each_installed_search_finds():
    names = [name for name, peer in SEARCHES.items() if peer.unavailable("cpu", "float32") is None]
    assert {"ours", "chunked", "faiss", "sentence_transformers"} <= set(names)
    job = {"shape": [200, 3000, 32], "k": 10, "dtype": "float32", "device": "cpu", "checked": 50}
    found = neighbour_jobs.quality({**job, "peers": names})
    assert 0.01 < found["capped"] < 0.9
    for name, peer in found["peers"].items():
        assert peer["forbidden"] == 0 or name == "sentence_transformers"
        if SEARCHES[name].exact:
            assert peer["found"] == 1.0
            assert peer["worst_gap"] < 1e-6


def test_the_oracle_of_the_search_agrees_with_sorting_everything():
    problem = make_problem(Shape(12, 300, 16), 7, "float32", "cpu", 3)
    best = exact_rows(problem)[1][:, 0]
    problem = replace(problem, answers=torch.stack([problem.answers[:, 0], best], dim=1))
    scores = problem.queries.double() @ problem.corpus.double().T
    for row in range(12):
        allowed = [
            column
            for column in range(300)
            if column not in problem.answers[row].tolist()
            and scores[row, column] < problem.ceiling[row].double()
        ]
        expected = sorted(allowed, key=lambda column: -scores[row, column])[:7]
        assert exact_rows(problem, chunk=64)[1][row].tolist() == expected


def test_filtering_searches_deeper_until_enough_is_left():
    problem = make_problem(Shape(20, 2000, 8), 5, "float32", "cpu", 4)
    depths = []

    def search(queries, depth):
        depths.append((len(queries), depth))
        return (queries @ problem.corpus.T).topk(depth, dim=1)

    found = filtered(search, problem, len(problem.corpus))
    assert (found == exact_rows(problem)[1]).all()
    assert depths[0] == (20, 105)
    assert len(depths) > 1  # in 8 dimensions more than a hundred documents are above the ceiling
    assert depths[1][0] < 20
    assert depths[1][1] == 420


def test_inputs_have_the_asked_cosine_and_are_never_the_same():
    queries, documents = make_inputs(Shape(200, 400, 64), "float32", "cpu", 0, 0.35)
    cosines = (queries * documents[:200]).sum(1)
    assert float(cosines.mean()) == pytest.approx(0.35, abs=0.02)
    assert torch.allclose(queries.norm(dim=1), torch.ones(200))
    assert not torch.equal(queries, make_inputs(Shape(200, 400, 64), "float32", "cpu", 1, 0.35)[0])
    assert _distance(2 * queries, queries.double()) == pytest.approx(1.0)


def test_calls_take_turns_and_short_first_rounds_do_not_count():
    order = []
    calls = {name: (lambda number, name=name: order.append((number, name))) for name in "ab"}
    times = take_turns(calls, "cpu", rounds=2, seconds=0.0)
    assert order == [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert len(times["a"]) == len(times["b"]) == 2


def test_ratios_are_taken_within_rounds():
    # The machine was ten times slower in the last rounds; that is no reason to call anything slower.
    assert ratio([2.0, 20.0, 20.0], [1.0, 10.0, 10.0]) == 2.0


def test_a_job_that_dies_is_an_error_with_its_last_line():
    with pytest.raises(JobFailed, match="KeyError: 'no such job'"):
        run_job("no such job", threads=1)


@pytest.mark.parametrize(
    ("value", "bounds", "reached"),
    [
        (1.05, {"most": 1.1}, True),
        (1.2, {"most": 1.1}, False),
        (2.0, {"least": 1.8}, True),
        (1.0, {"least": 1.8}, False),
        (None, {"least": 1.8}, None),
        (1.0, {}, None),
    ],
)
def test_goals(value, bounds, reached):
    assert goal("name", Shape(1, 2, 3), value, **bounds)["reached"] is reached


def test_reasons_for_not_running():
    peer = Peer(
        "x", "X", lambda: None, lambda shape, size: 10 * 10**9, module="no_such_module", cuda_only=True
    )
    assert peer.unavailable("cpu", "float32") == "not run: needs CUDA"
    assert peer.unavailable("cuda", "float32") == "not run: no_such_module is not installed"
    assert peer.too_large(Shape(1, 1, 1), 4, 10**9) == "skipped: would take about 10 GB, 1 GB are free"
    assert peer.too_large(Shape(1, 1, 1), 4, 11 * 10**9) is None


@pytest.mark.parametrize("peer", [peer for peer in PEERS if not peer.limit], ids=lambda peer: peer.name)
def test_every_installed_loss_agrees_on_value_and_gradients(peer):
    if (reason := peer.unavailable("cpu", "float32")) or peer.compiled:
        pytest.skip(reason or "compiles")
    queries, documents = make_inputs(Shape(48, 96, 32), "float32", "cpu", 5, 0.3)
    logits = 50 * queries.double() @ documents.double().T
    share = logits.softmax(1) - torch.eye(48, 96)
    result = peer.load()(queries, documents, 50.0, True)
    expected = -logits.log_softmax(1).diagonal().mean()
    assert float(result.loss) == pytest.approx(float(expected), rel=1e-5)
    to_queries = 50 / 48 * share @ documents.double()
    to_documents = 50 / 48 * share.T @ queries.double()
    if peer.normalises:
        to_queries -= (to_queries * queries).sum(1, keepdim=True) * queries
        to_documents -= (to_documents * documents).sum(1, keepdim=True) * documents
    assert _distance(result.queries, to_queries) < 1e-5
    assert _distance(result.documents, to_documents) < 1e-5
    assert float(peer.load()(queries, documents, 50.0, False).loss) == pytest.approx(
        float(expected), rel=1e-5
    )
