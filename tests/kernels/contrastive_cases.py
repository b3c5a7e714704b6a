"""info_nce as a whole on Triton's kernels, under the interpreter; `test_interpreted.py` runs it."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retrofit_kernels import ContrastiveOptions, Guide, Threshold, info_nce
from retrofit_kernels._loss import strip_triton, terms
from retrofit_kernels.reference import reference_info_nce
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

ROWS, COLUMNS, DIMENSION = 37, 75, 40


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def loss_of(function, positives, options):
    def loss(queries, documents, scale):
        output = function(queries, documents, scale=scale, positives=positives, options=options)
        return output if isinstance(output, Tensor) else output.loss

    return loss


def single(value: object) -> object:
    """Options in fp32, as Triton reads them."""
    if isinstance(value, Guide):
        return Guide(value.queries.float(), value.documents.float(), value.threshold)
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


@pytest.fixture
def without_slack(monkeypatch):
    """Thresholds where the dense formula has them: random pairs lie within their slack."""

    def nothing(left, right, positives, settings, *, unit):
        return torch.zeros(positives.shape)

    monkeypatch.setattr(terms, "_rounding", nothing)


def several_positives(option_cases, rows: int) -> Tensor:
    positives = option_cases.numbers(2, rows, 3, low=-1, high=COLUMNS)
    positives[:, 0] = positives[:, 0].clamp(min=0)
    return positives


@pytest.mark.parametrize("several", [False, True])
def test_every_option_in_fp32(option_cases, gradients, without_slack, several):
    rows = 17 if several else ROWS  # a row per positive: they fill more than one tile, too
    positives = several_positives(option_cases, rows) if several else None
    vectors = option_cases.vectors(3, rows, DIMENSION), option_cases.vectors(4, COLUMNS, DIMENSION)
    exact = *vectors, torch.tensor(15.0, dtype=torch.float64)
    every = option_cases.option_sets(rows, COLUMNS, DIMENSION, 5)
    every["all"] = {key: value for name in option_cases.NAMES for key, value in every[name].items()}
    for name, values in every.items():
        expected = gradients(loss_of(reference_info_nce, positives, ContrastiveOptions(**values)), *exact)
        values = {key: single(value) for key, value in values.items()}
        options = ContrastiveOptions(**values, backend="triton", precision="ieee")
        found = gradients(loss_of(info_nce, positives, options), *(operand.float() for operand in exact))
        for mine, truth in zip(found, expected, strict=True):
            assert error(mine, truth) < 3e-6, name


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_combination_of_options(option_cases, gradients, without_slack, data):
    """fp32, fp16, and bf16 numbers held in fp32; loss and gradients against fp64 of the same numbers."""
    rows, columns = data.draw(st.integers(1, 35)), data.draw(st.integers(35, 70))
    dimension, seed = data.draw(st.integers(8, 70)), data.draw(st.integers(0, 99))
    kind = data.draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    chosen = data.draw(st.lists(st.sampled_from(option_cases.NAMES), unique=True, max_size=5))
    scale = data.draw(st.sampled_from([1.0, 20.0, 50.0]))
    every = option_cases.option_sets(rows, columns, dimension, seed)
    merged = {key: value for name in chosen for key, value in every[name].items()}
    if "prefix_weights" in merged:
        merged["prefixes"] = every["weighted prefixes"]["prefixes"]
    held = torch.float16 if kind == torch.float16 else torch.float32
    sides = (
        option_cases.vectors(seed + 1, rows, dimension),
        option_cases.vectors(seed + 2, columns, dimension),
    )
    operands = *(side.to(kind).to(held) for side in sides), torch.tensor(scale)
    exact = gradients(
        loss_of(reference_info_nce, None, ContrastiveOptions(**merged)), *(x.double() for x in operands)
    )
    merged = {key: single(value) for key, value in merged.items()}
    options = ContrastiveOptions(**merged, backend="triton", precision="ieee")
    found = gradients(loss_of(info_nce, None, options), *operands)
    # The interpreter cuts bf16 off instead of rounding it: strips of fp16 embeddings err by up to 2^-7.
    limits = [2e-5] * 4 if held == torch.float32 else [2e-5, 1.2e-2, 1.2e-2, 1.2e-2]
    # The scale's gradient is an inner product of queries and their gradient, in which much may cancel.
    sizes = [float(truth.norm()) for truth in exact]
    sizes[3] = max(sizes[3], sizes[1] * float(operands[0].norm()) / scale)
    for mine, truth, limit, size in zip(found, exact, limits, sizes, strict=True):
        assert float((mine.double() - truth).norm()) <= limit * size + 1e-7, chosen


@pytest.mark.parametrize("temperature", [0.005, 0.02, 1.0])
def test_rows_whose_exponentials_overflow(option_cases, gradients, temperature):
    """Half of the positives are the worst document of all (cosine -1), and a negative the best (cosine 1)."""
    queries = option_cases.vectors(1, 40, 16)
    documents = torch.cat([-queries[:20], queries[20:], queries[:20], option_cases.vectors(2, 12, 16)])
    exact = queries, documents, torch.tensor(1 / temperature, dtype=torch.float64)
    expected = gradients(lambda q, d, s: reference_info_nce(q, d, scale=s), *exact)
    options = ContrastiveOptions(backend="triton", precision="ieee")
    found = gradients(
        lambda q, d, s: info_nce(q, d, scale=s, options=options).loss, *(operand.float() for operand in exact)
    )
    for mine, truth in zip(found, expected, strict=True):
        assert mine.isfinite().all()
        assert error(mine, truth) < 1e-5


class RoundedStrips(strip_triton.TritonStrips):
    """Exponentials in bf16, rounded as a GPU rounds them: the interpreter cuts the lower bits off instead."""

    def __init__(self, term, precision):
        super().__init__(term, precision)
        self.dtype = torch.bfloat16

    def fill(self, begin, end, preferred, entries):
        exact = torch.empty_like(entries, dtype=torch.float32)
        filled = super().fill(begin, end, preferred, exact)
        entries.copy_(exact)
        return filled


@pytest.mark.parametrize(("spread", "limit"), [(6.0, 2e-3), (1.0, 1e-3)])
def test_bf16_strips(option_cases, gradients, spread, limit):
    """Hard data (the positive is lost among negatives) and converged data (loss 3e-11), temperature 0.02.

    The inputs are bf16 numbers, multiplied as fp32. Measured, of queries' and documents' gradients: 4e-4 to
    6e-4. Where one exponential outweighs all others its own rounding shows, up to 2^-9 (2e-3).
    """
    documents = option_cases.vectors(1, 600, 384).bfloat16()
    noise = option_cases.vectors(2, 300, 384)
    queries = normalize(documents[:300].double() + spread * noise, dim=1).bfloat16()
    exact = gradients(lambda q, d: reference_info_nce(q, d, scale=50.0), queries.double(), documents.double())
    assert (exact[0] > 1) == (spread > 2)
    options = ContrastiveOptions(backend="triton", precision="ieee")
    with mock.patch.object(strip_triton, "TritonStrips", RoundedStrips):
        found = gradients(
            lambda q, d: info_nce(q, d, scale=50.0, options=options).loss, queries.float(), documents.float()
        )
    errors = [error(mine, truth) for mine, truth in zip(found, exact, strict=True)]
    assert errors[0] < 1e-6
    assert max(errors[1:]) <= limit


def test_fp16_embeddings(option_cases, gradients):
    vectors = (
        option_cases.vectors(3, ROWS, DIMENSION).half(),
        option_cases.vectors(4, COLUMNS, DIMENSION).half(),
    )
    exact = gradients(lambda q, d: reference_info_nce(q, d, scale=20.0), *(x.double() for x in vectors))
    options = ContrastiveOptions(backend="triton")
    found = gradients(lambda q, d: info_nce(q, d, scale=20.0, options=options).loss, *vectors)
    assert error(found[0], exact[0]) < 1e-6
    assert max(error(mine, truth) for mine, truth in zip(found[1:], exact[1:], strict=True)) < 5e-3


def test_accuracy_and_masked_pairs(option_cases):
    values = option_cases.option_sets(ROWS, COLUMNS, DIMENSION, 5)["ids"]
    vectors = (
        option_cases.vectors(3, ROWS, DIMENSION).float(),
        option_cases.vectors(4, COLUMNS, DIMENSION).float(),
    )
    outputs = [
        info_nce(
            *vectors, scale=20.0, options=ContrastiveOptions(**values, backend=backend, precision="ieee")
        )
        for backend in ("torch", "triton")
    ]
    assert outputs[0].masked == outputs[1].masked > 0
    assert_close(outputs[0].accuracy, outputs[1].accuracy)


@pytest.mark.parametrize("rule", [Threshold(0.0, "margin"), Threshold(1.0, "percentage")])
@pytest.mark.parametrize("guided", [False, True])
def test_duplicates_of_the_positive_are_not_above_it(option_cases, rule, guided):
    documents = option_cases.vectors(1, 40, 200)
    queries = (documents + 0.1 * option_cases.vectors(2, 40, 200)).float()
    twice = torch.cat([documents, documents]).float()
    limits = {"guide": Guide(queries, twice, rule)} if guided else {"false_negatives": rule}
    for precision in ("tf32", "ieee"):
        options = ContrastiveOptions(**limits, backend="triton", precision=precision)
        assert info_nce(queries, twice, scale=20.0, options=options).masked == 0


class CutToTf32:
    """The kernel as tensor cores run it at worst: 11 significant bits of each factor, the rest cut off."""

    kernel = strip_triton.strip
    names = ("rows", "columns", "guide_rows", "guide_columns")

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            cut = {
                place: (value.view(torch.int32) & ~0x1FFF).view(torch.float32)
                for place, (name, value) in enumerate(zip(self.kernel.arg_names, arguments, strict=False))
                if name in self.names and value is not None
            }
            arguments = [cut.get(place, value) for place, value in enumerate(arguments)]
            return self.kernel[grid](*arguments, **options)

        return launch


@pytest.mark.parametrize("rule", [Threshold(0.0, "margin"), Threshold(1.0, "percentage")])
@pytest.mark.parametrize("name", ["false_negatives", "guide", "guide in fp64"])
def test_duplicates_of_an_opposite_positive_in_tf32(monkeypatch, option_cases, rule, name):
    """Cutting makes similarities below 0 larger: those of duplicates come out above the exact one."""
    documents = option_cases.vectors(1, 40, 200)
    twice = torch.cat([documents, documents])
    kind = torch.float64 if name == "guide in fp64" else torch.float32
    sides = -documents.to(kind), twice.to(kind)
    limits = {"guide": Guide(*sides, rule)} if "guide" in name else {"false_negatives": rule}
    monkeypatch.setattr(strip_triton, "strip", CutToTf32())
    options = ContrastiveOptions(**limits, backend="triton")
    masked = info_nce(sides[0].float(), sides[1].float(), scale=20.0, options=options).masked
    assert masked == 40 * 78  # all but the positive and its duplicate


def test_duplicates_of_the_positive_by_a_guide_in_fp64(option_cases):
    """It is multiplied in fp32."""
    documents = option_cases.vectors(1, 40, 200)
    queries, twice = documents + 0.1 * option_cases.vectors(2, 40, 200), torch.cat([documents, documents])
    options = ContrastiveOptions(guide=Guide(queries, twice), backend="triton", precision="ieee")
    assert info_nce(queries.float(), twice.float(), scale=20.0, options=options).masked == 0


@pytest.mark.parametrize(("temperature", "lost"), [(0.02, 0.021), (0.005, 0.081)])
def test_what_tf32_costs_is_as_documented(monkeypatch, option_cases, temperature, lost):
    """Each query has one negative, a duplicate of its positive at cosine 0.6: it would count exactly 1."""
    queries, other = option_cases.vectors(1, 64, 384), option_cases.vectors(2, 64, 384)
    across = normalize(other - (other * queries).sum(1, keepdim=True) * queries, dim=1)
    documents = 0.6 * queries + 0.8 * across
    operands = queries.float(), torch.cat([documents, documents]).float()
    groups = torch.arange(64)
    monkeypatch.setattr(strip_triton, "strip", CutToTf32())
    options = ContrastiveOptions(
        query_groups=groups, document_groups=torch.cat([groups, groups]), backend="triton", reduction="none"
    )
    loss = info_nce(*operands, scale=1 / temperature, options=options).loss
    assert float(loss.double().expm1().mean()) == pytest.approx(1 - lost, abs=0.003)


@pytest.mark.parametrize("context", ["autocast", "inference_mode", "strided", "compiled"])
def test_contexts(option_cases, gradients, context):
    """As without, bit by bit, forward and where there is one backward."""
    options = ContrastiveOptions(backend="triton", prefixes=(16, DIMENSION))
    operands = [option_cases.vectors(seed, rows, DIMENSION).float() for seed, rows in ((3, 20), (4, 50))]

    def step(queries, documents):
        return info_nce(queries * 1.5, documents, scale=20.0, options=options).loss

    expected = gradients(step, *operands)
    if context == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found = gradients(step, *operands)
    elif context == "inference_mode":
        with torch.inference_mode():
            found, expected = step(*operands), expected[0]
    elif context == "strided":
        wide = [torch.cat([side, side], dim=1).T.contiguous().T[:, :DIMENSION] for side in operands]
        assert not any(side.is_contiguous() for side in wide)
        leaves = [side.requires_grad_() for side in wide]
        loss = step(*leaves)
        found = [loss.detach(), *torch.autograd.grad(loss, leaves)]
    else:
        found = gradients(torch.compile(step, backend="aot_eager", fullgraph=True), *operands)
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2)])
def test_every_option_with_next_to_nothing(option_cases, gradients, without_slack, rows, columns):
    exact = (
        option_cases.vectors(3, rows, DIMENSION),
        option_cases.vectors(4, columns, DIMENSION),
        torch.tensor(15.0, dtype=torch.float64),
    )
    for name, values in option_cases.option_sets(rows, columns, DIMENSION, 5).items():
        expected = gradients(loss_of(reference_info_nce, None, ContrastiveOptions(**values)), *exact)
        values = {key: single(value) for key, value in values.items()}
        options = ContrastiveOptions(**values, backend="triton", precision="ieee")
        found = gradients(loss_of(info_nce, None, options), *(operand.float() for operand in exact))
        for mine, truth in zip(found, expected, strict=True):
            assert float((mine.double() - truth).norm()) <= 1e-5 * float(truth.norm()) + 1e-9, name


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 3), (1, 1)])
def test_without_negatives(gradients, rows, columns):
    options = ContrastiveOptions(backend="triton")
    vectors = torch.ones(rows, 4), torch.ones(columns, 4)
    found = gradients(lambda q, d: info_nce(q, d, scale=2.0, options=options).loss, *vectors)
    assert all(not tensor.any() for tensor in found)
