"""x Wᵀ by oneDNN and by torch's own choice: the same numbers, and oneDNN only where it can."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from retrofit_kernels import info_nce
from retrofit_kernels import linear as module
from retrofit_kernels.linear import linear_in, onednn_linear, prefers_onednn
from torch import Tensor

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture(params=["torch", "onednn"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every product by one library, however small."""
    if request.param == "onednn" and not HAS_ONEDNN:
        pytest.skip("this torch is built without oneDNN")
    monkeypatch.setattr(module, "prefers_onednn", lambda: request.param == "onednn")
    monkeypatch.setattr(module, "LEAST_OPERATIONS", 1)
    monkeypatch.setattr(module, "WHOLE", 1)
    return request.param


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that oneDNN is asked for, on a machine where it is the faster one."""
    shapes: list[tuple[int, ...]] = []

    def noted(x: Tensor, weight: Tensor) -> Tensor:
        shapes.append((*x.shape, len(weight)))
        return x @ weight.T

    monkeypatch.setattr(module, "prefers_onednn", lambda: True)
    monkeypatch.setattr(module, "onednn_linear", noted)
    monkeypatch.setattr(module, "LEAST_OPERATIONS", 1)
    monkeypatch.setattr(module, "WHOLE", 4)
    return shapes


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def product(x: Tensor, weight: Tensor) -> Tensor:
    return linear_in(x.new_empty(len(x), len(weight)), x, weight)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 33, 5), (130, 384, 257)])
def test_linear_in_is_the_product(library: str, shape: tuple[int, int, int], transposed: bool) -> None:
    rows, inner, outer = shape
    x, room = random(rows, inner), torch.empty(rows, outer)
    weight = random(inner, outer, seed=1).T if transposed else random(outer, inner, seed=1)
    found = linear_in(room, x, weight)
    assert found.shape == (rows, outer) and found.is_contiguous()
    assert error(found, x.double() @ weight.double().T) < 1e-6
    assert (found is room) == (library == "torch")


def test_rows_may_lie_apart(library: str) -> None:
    x, weight = random(40, 64)[:, :48], random(48, 20, seed=1).T
    assert error(product(x, weight), x.double() @ weight.double().T) < 1e-6


def test_few_shapes_go_to_onednn(asked: list[tuple[int, ...]]) -> None:
    """It keeps a program for every shape that it has seen."""
    for rows in range(7, 30):
        product(random(rows, 16), random(4, 16))
        product(random(4, 16), random(rows, 16))
        product(random(4, rows), random(4, rows))
    assert len(asked) == 3 * 6
    assert not any(size % 4 for shape in asked for size in shape)


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (random(8, 16, dtype=torch.float64), random(4, 16, dtype=torch.float64)),
        (random(8, 16).bfloat16(), random(4, 16).bfloat16()),
        (random(16, 8).T, random(4, 16)),
        (random(8, 16), random(16, 9).T[:4]),  # oneDNN took minutes for such tiles
        (random(0, 16), random(4, 16)),
        (random(8, 0), random(4, 0)),
        (random(8, 16), random(0, 16)),
        (random(8, 16).to("meta"), random(4, 16).to("meta")),
    ],
    ids=["fp64", "bf16", "transposed", "tile", "no rows", "no inner", "no outer", "meta"],
)
def test_onednn_is_asked_for_what_it_does_well_alone(
    asked: list[tuple[int, ...]], x: Tensor, weight: Tensor
) -> None:
    assert product(x, weight).shape == (len(x), len(weight))
    assert asked == []


def test_autocast_decides_the_type(asked: list[tuple[int, ...]]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        product(random(8, 16), random(4, 16))
    assert asked == []


def test_small_products_stay_with_torch(
    asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_OPERATIONS", 2 * 8 * 16 * 4)
    product(random(8, 16), random(4, 16))
    product(random(8, 12), random(4, 12))
    assert asked == [(8, 16, 4)]


@pytest.mark.parametrize(
    ("processor", "instructions", "expected"),
    [
        ("vendor_id\t: AuthenticAMD", "AVX512", HAS_ONEDNN),
        ("vendor_id\t: AuthenticAMD", "AVX2", False),
        ("vendor_id\t: GenuineIntel", "AVX512", False),
    ],
)
def test_onednn_is_for_amd_with_avx512(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processor: str, instructions: str, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(processor + "\n")
    monkeypatch.setattr(module, "_PROCESSORS", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    assert prefers_onednn.__wrapped__() is expected


@pytest.mark.skipif(not HAS_ONEDNN, reason="this torch is built without oneDNN")
def test_loss_and_gradients_by_either_library(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    calls = []
    monkeypatch.setattr(module, "LEAST_OPERATIONS", 1)
    monkeypatch.setattr(module, "WHOLE", 2)
    monkeypatch.setattr(module, "onednn_linear", lambda *given: calls.append(1) or onednn_linear(*given))
    for wanted in (False, True):
        monkeypatch.setattr(module, "prefers_onednn", lambda wanted=wanted: wanted)
        queries, documents = (
            torch.nn.functional.normalize(random(rows, 48, seed=rows), dim=1).requires_grad_()
            for rows in (150, 1100)
        )
        scale = torch.tensor(30.0, requires_grad=True)
        loss = info_nce(queries, documents, scale=scale).loss
        loss.backward()
        found[wanted] = [loss.detach(), queries.grad, documents.grad, scale.grad]
    assert len(calls) >= 2  # the strip, and the queries' gradients
    for one, other in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-6)
