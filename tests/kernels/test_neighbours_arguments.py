"""What nearest_neighbours refuses about backends, modes and values, in one line each."""

from __future__ import annotations

import pytest
import torch
from retrofit_kernels import NeighbourOptions, nearest_neighbours, neighbours
from retrofit_kernels._shared import backend


@pytest.fixture(autouse=True)
def no_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (1, {"backend": "cuda"}, r"backend must be auto, torch, triton or faiss, not 'cuda'"),
        (1, {"mode": "fast"}, r"mode must be exact or approximate, not 'fast'"),
        (1, {"mode": "approximate", "backend": "faiss"}, r"mode must be exact with the backend faiss"),
        (513, {"mode": "approximate"}, r"k must be at most 512 in approximate mode \(4096 slots\), not 513"),
        (1, {"backend": "triton"}, r"the backend triton needs an NVIDIA GPU, not .*cpu"),
    ],
)
def test_wrong_option_is_named(k, options, message):
    with pytest.raises(ValueError, match=message) as error:
        nearest_neighbours(torch.eye(2, 4), torch.eye(600, 4), k, options=NeighbourOptions(**options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"mode": "exact"}, {}, 0])
def test_options_of_another_kind_are_refused(options):
    with pytest.raises(TypeError, match=r"options must be a NeighbourOptions, not (dict|int)"):
        nearest_neighbours(torch.eye(2, 4), torch.eye(3, 4), 1, options=options)


def test_tensors_without_rows_of_numbers_are_refused():
    queries, corpus = torch.eye(2, 4), torch.eye(3, 4)
    with pytest.raises(TypeError, match=r"corpus must be a dense tensor, but .* torch.sparse_coo"):
        nearest_neighbours(queries, corpus.to_sparse(), 1)
    with pytest.raises(ValueError, match=r"queries must hold values, but has .*meta"):
        nearest_neighbours(queries.to("meta"), corpus.to("meta"), 1)


def test_fp64_is_not_for_triton(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match=r"the backend triton needs fp16, bf16 or fp32, not .*float64"):
        nearest_neighbours(
            torch.eye(2, 4), torch.eye(3, 4).double(), 1, options=NeighbourOptions(backend="triton")
        )


def test_a_corpus_on_a_third_device_is_refused():
    with pytest.raises(ValueError, match=r"corpus must be on cpu, as queries are, or on cpu, not on meta"):
        nearest_neighbours(torch.eye(2, 4), torch.eye(3, 4, device="meta"), 1)


@pytest.mark.parametrize("found", [(7, 5), (8, 0)])
def test_auto_takes_triton_from_compute_capability_8(monkeypatch, found):
    class OnGpu:
        device = torch.device("cuda")
        dtype = torch.float32
        shape = (1, 1)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found)
    assert backend.takes_triton(OnGpu()) == (found == (8, 0))
    if found == (7, 5):
        assert backend.why_not_triton(OnGpu()) == "compute capability 8.0 or more, not 7.5"


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("broken", ["queries", "corpus"])
def test_values_that_make_no_scores(backend, value, broken):
    arguments = {"queries": torch.ones(2, 4), "corpus": torch.ones(3, 4)}
    arguments[broken][1, 2] = value
    message = (
        f"^{broken} must be finite, .* NaN or infinite values .shape .{len(arguments[broken])}, 4., .*cpu.$"
    )
    if value == 3e38:
        message = (
            r"queries \(shape \(2, 4\), .*\) and corpus \(shape \(3, 4\), .*\) hold too large values: .*unit"
        )
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(**arguments, k=1, options=NeighbourOptions(backend=backend))


def test_a_ceiling_that_is_no_number_is_refused():
    ceiling = torch.tensor([torch.inf, torch.nan])
    with pytest.raises(ValueError, match="ceiling must be numbers, but row 1 is NaN"):
        nearest_neighbours(torch.eye(2, 4), torch.eye(3, 4), 1, options=NeighbourOptions(ceiling=ceiling))


def test_without_faiss_its_import_fails(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ImportError, match="faiss"):
        nearest_neighbours(torch.eye(2), torch.eye(2), 1, options=NeighbourOptions(backend="faiss"))


def test_the_modes_and_backends_are_the_documented_ones():
    assert neighbours.Backend.__args__ == ("auto", "torch", "triton", "faiss")
    assert neighbours.Mode.__args__ == ("exact", "approximate")
