"""x Wᵀ by oneDNN and by torch's own choice: the same numbers, and oneDNN only where it can."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from retrofit_kernels import info_nce
from retrofit_kernels import linear as module
from retrofit_kernels.linear import linear, linear_in, onednn_linear, prefers_onednn
from torch import Tensor

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture(params=["torch", "onednn"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every product by one library, however small."""
    if request.param == "onednn" and not HAS_ONEDNN:
        pytest.skip("this torch is built without oneDNN")
    monkeypatch.setattr(module, "prefers_onednn", lambda: request.param == "onednn")
    monkeypatch.setattr(module, "LEAST_OPERATIONS", 1)
    return request.param


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that oneDNN is asked for, on a machine where it is the faster one."""
    shapes: list[tuple[int, ...]] = []

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None = None, plus: Tensor | None = None) -> Tensor:
        shapes.append((*x.shape, len(weight)))
        product = x @ weight.T
        product = product if bias is None else product + bias
        return product if plus is None else product + plus

    monkeypatch.setattr(module, "prefers_onednn", lambda: True)
    monkeypatch.setattr(module, "onednn_linear", noted)
    monkeypatch.setattr(module, "LEAST_OPERATIONS", 1)
    return shapes


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 33, 5), (130, 384, 257), (3, 50, 64, 96)])
@pytest.mark.parametrize("more", [(), ("bias",), ("plus",), ("bias", "plus")])
def test_linear_is_the_product(
    library: str, shape: tuple[int, ...], transposed: bool, more: tuple[str, ...]
) -> None:
    *rows, inner, outer = shape
    x = random(*rows, inner)
    weight = random(inner, outer, seed=1).T if transposed else random(outer, inner, seed=1)
    bias = random(outer, seed=2) if "bias" in more else None
    plus = random(*rows, outer, seed=3) if "plus" in more else None
    before = None if plus is None else plus.clone()

    found = linear(x, weight, bias, plus)

    exact = x.double() @ weight.double().T
    exact = exact if bias is None else exact + bias.double()
    exact = exact if plus is None else exact + plus.double()
    assert found.shape == (*rows, outer) and found.is_contiguous()
    assert error(found, exact) < 1e-6
    if plus is not None:
        assert before is not None and torch.equal(plus, before)
        assert found.data_ptr() != plus.data_ptr()


def test_linear_in_is_the_product(library: str) -> None:
    x, weight, room = random(70, 48), random(90, 48, seed=1), torch.empty(70, 90)
    found = linear_in(room, x, weight)
    assert error(found, x.double() @ weight.double().T) < 1e-6
    assert (found is room) == (library == "torch")


def test_rows_may_lie_apart(library: str) -> None:
    x, weight = random(40, 64)[:, :48], random(48, 20, seed=1).T
    assert error(linear(x, weight), x.double() @ weight.double().T) < 1e-6


def test_gradients_are_torchs_own(asked: list[tuple[int, ...]]) -> None:
    x, weight = random(20, 30).requires_grad_(), random(10, 30, seed=1)
    linear(x, weight).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight.sum(0).expand(20, 30))
    assert asked == []
    with torch.no_grad():
        linear(x, weight)
    assert asked == [(20, 30, 10)]


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
    assert linear(x, weight).shape == (len(x), len(weight))
    assert asked == []


def test_autocast_decides_the_type(asked: list[tuple[int, ...]]) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert linear(random(8, 16), random(4, 16)).dtype == torch.bfloat16
    assert asked == []


def test_small_products_stay_with_torch(
    asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_OPERATIONS", 2 * 8 * 16 * 4)
    linear(random(8, 16), random(4, 16))
    linear(random(8, 16), random(3, 16))
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
