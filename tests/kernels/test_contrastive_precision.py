"""Accuracy of info_nce: half precision, autocast, extreme temperatures, converged and overflowing rows."""

from __future__ import annotations

import math

import pytest
import torch
from retrofit_kernels import ContrastiveOptions, Guide, info_nce
from retrofit_kernels._shared.precision import own_precision
from retrofit_kernels.reference import reference_info_nce
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

LOG2_E = math.log2(math.e)
TEMPERATURES = [0.005, 0.01, 0.02, 0.1, 1.0]
DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def error(found, expected):
    return (found.double() - expected).norm() / expected.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_no_worse_than_dense_torch_in_the_same_type(embeddings, gradients, dtype, temperature):
    """|ours - fp64| ≤ 2·|dense - fp64| + eps, for the loss and each gradient, relative to their norm."""
    documents = embeddings(80, 32, 1)
    queries = normalize(documents[:48] + 2 * embeddings(48, 32, 2), dim=1)
    scale = torch.tensor(1 / temperature)
    rounded = queries.to(dtype), documents.to(dtype), scale
    found = gradients(lambda q, d, s: info_nce(q, d, scale=s).loss, *rounded)
    dense = gradients(lambda q, d, s: cross_entropy(q @ d.T * s, torch.arange(48)), *rounded)
    exact = gradients(lambda q, d, s: reference_info_nce(q, d, scale=s), *(x.double() for x in rounded))
    assert [x.dtype for x in found] == [torch.float32, dtype, dtype, torch.float32]
    for mine, theirs, truth in zip(found, dense, exact, strict=True):
        assert error(mine, truth) <= 2 * error(theirs, truth) + torch.finfo(mine.dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dimension", [33, 100, 1000, 4096])
def test_dimensions(embeddings, gradients, dimension, dtype):
    """Up to 4096, and none but the last a multiple of a tile; three-way as above."""
    documents = embeddings(70, dimension, 1)
    queries = normalize(documents[:41] + 2 * embeddings(41, dimension, 2), dim=1)
    rounded = queries.to(dtype), documents.to(dtype), torch.tensor(50.0)
    found = gradients(lambda q, d, s: info_nce(q, d, scale=s).loss, *rounded)
    dense = gradients(lambda q, d, s: cross_entropy(q @ d.T * s, torch.arange(41)), *rounded)
    exact = gradients(lambda q, d, s: reference_info_nce(q, d, scale=s), *(x.double() for x in rounded))
    for mine, theirs, truth in zip(found, dense, exact, strict=True):
        assert error(mine, truth) <= 2 * error(theirs, truth) + torch.finfo(mine.dtype).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_lose_nothing_but_the_rounding_of_the_result(embeddings, gradients, dtype):
    rounded = embeddings(48, 32, 1, dtype), embeddings(80, 32, 2, dtype), torch.tensor(100.0)
    found = gradients(lambda q, d, s: info_nce(q, d, scale=s).loss, *rounded)
    exact = gradients(lambda q, d, s: reference_info_nce(q, d, scale=s), *(x.double() for x in rounded))
    assert error(found[0], exact[0]) < 1e-6
    assert error(found[3], exact[3]) < 1e-5
    for mine, truth in zip(found[1:3], exact[1:3], strict=True):
        assert_close(mine.double(), truth, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("masked", [False, True])
def test_rows_whose_exponentials_overflow(embeddings, gradients, temperature, masked):
    """Half of the positives are the worst document of all (cosine -1), and a negative the best (cosine 1)."""
    queries = embeddings(6, 16, 1)
    documents = torch.cat([-queries[:3], queries[3:], queries[:3], embeddings(12, 16, 2)])
    ids = torch.arange(21) % 7
    options = ContrastiveOptions(query_ids=ids[:6], document_ids=ids) if masked else ContrastiveOptions()
    exact = queries, documents, torch.tensor(1 / temperature, dtype=torch.float64)
    expected = gradients(lambda q, d, s: reference_info_nce(q, d, scale=s, options=options), *exact)
    operands = [operand.float() for operand in exact]
    found = gradients(lambda q, d, s: info_nce(q, d, scale=s, options=options).loss, *operands)
    for mine, truth in zip(found, expected, strict=True):
        assert mine.isfinite().all()
        assert error(mine, truth) < 1e-5
    accuracy = info_nce(*operands[:2], scale=operands[2], options=options).accuracy
    assert_close(accuracy, torch.tensor(0.5))


def test_gradients_do_not_cancel_when_nearly_converged(embeddings, gradients):
    """At a loss near 1e-8, p - 1 in fp32 has no correct digit left."""
    documents = torch.eye(24, dtype=torch.float64)
    queries = normalize(documents + 0.05 * embeddings(24, 24, 1), dim=1)
    operands = queries, documents, torch.tensor(22.0, dtype=torch.float64)
    expected = gradients(lambda q, d, s: reference_info_nce(q, d, scale=s), *operands)
    assert expected[0] < 1e-7
    found = gradients(
        lambda q, d, s: info_nce(q, d, scale=s).loss, *(operand.float() for operand in operands)
    )
    for mine, truth in zip(found, expected, strict=True):
        assert error(mine, truth) < 1e-5


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(embeddings, gradients, reduction, dtype):
    options = ContrastiveOptions(reduction=reduction)
    operands = embeddings(24, 16, 1, dtype), embeddings(40, 16, 2, dtype), torch.tensor(50.0)
    plain = gradients(lambda q, d, s: info_nce(q, d, scale=s, options=options).loss, *operands)
    with torch.autocast("cpu", torch.bfloat16):
        cast = gradients(lambda q, d, s: info_nce(q, d, scale=s, options=options).loss, *operands)
    assert_close(cast, plain, rtol=0, atol=0)


def test_gradients_agree_with_autograd_at_a_training_shape(embeddings, gradients):
    operands = (
        embeddings(1500, 64, 1, torch.float32),
        embeddings(3000, 64, 2, torch.float32),
        torch.tensor(50.0),
    )
    found = gradients(lambda q, d, s: info_nce(q, d, scale=s).loss, *operands)
    dense = gradients(lambda q, d, s: reference_info_nce(q, d, scale=s), *operands)
    for mine, theirs in zip(found, dense, strict=True):
        assert error(mine, theirs.double()) < 3.4e-6


@pytest.mark.parametrize("spread", [3.0, 0.15])
def test_gradients_of_16_bit_embeddings(embeddings, gradients, spread):
    """Hard data (the positive is lost among the negatives) and converged data, at temperature 0.02."""
    documents = embeddings(600, 64, 1, torch.bfloat16)
    queries = normalize(documents[:300].double() + spread * embeddings(300, 64, 2), dim=1).bfloat16()
    operands = queries.double(), documents.double()
    exact = gradients(lambda q, d: reference_info_nce(q, d, scale=50.0), *operands)
    assert (exact[0] > 1) == (spread > 1)
    found = gradients(lambda q, d: info_nce(q, d, scale=50.0).loss, *(x.float() for x in operands))
    rounded = gradients(lambda q, d: info_nce(q, d, scale=50.0).loss, queries, documents)
    for mine, half, truth in zip(found[1:], rounded[1:], exact[1:], strict=True):
        assert error(mine, truth) <= 1e-5
        assert error(half, truth) <= 2e-3  # the rounding of the gradient itself, to bf16


# Largest logits as powers of two: with and without an offset, and close to where the one begins.
@pytest.mark.parametrize("power", [20.0, 60.0, 91.9, 92.1, 140.0])
@pytest.mark.parametrize("positive", [-1.0, 0.0, 0.9])
def test_opposite_and_equal_vectors(embeddings, gradients, power, positive):
    """Exponentials at both ends of what float32 holds: 2^-power and 2^power in one row, 128 columns."""
    axis = normalize(torch.ones(16), dim=0)
    noise = embeddings(8, 16, 3, torch.float32)
    side = normalize(noise - (noise @ axis)[:, None] * axis, dim=1)
    own = positive * axis + (1 - positive**2) ** 0.5 * side
    others = torch.cat([axis.repeat(40, 1), -axis.repeat(40, 1), embeddings(40, 16, 4, torch.float32)])
    case = axis.repeat(8, 1), torch.cat([own, others]), torch.tensor(power / LOG2_E)
    found = gradients(lambda q, d, s: info_nce(q, d, scale=s).loss, *case)
    exact = gradients(lambda q, d, s: reference_info_nce(q, d, scale=s), *(x.double() for x in case))
    for mine, truth in zip(found, exact, strict=True):
        assert error(mine, truth) < 2e-5


@pytest.mark.parametrize("allowed", ["highest", "high", "medium"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_lower_precision_of_products_is_not_taken_over(embeddings, gradients, allowed, reduction):
    """Loss and gradients have the bits that they have without; also those that are made in backward."""
    options = ContrastiveOptions(reduction=reduction, guide=Guide(torch.eye(48), torch.eye(80, 48)))
    documents = embeddings(80, 96, 1, torch.float32)
    operands = normalize(documents[:48] + 2 * embeddings(48, 96, 2).float(), dim=1), documents

    def loss(queries, documents):
        return info_nce(queries, documents, scale=50.0, options=options).loss

    expected = gradients(loss, *operands)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allowed)
    try:
        found = gradients(loss, *operands)
        assert torch.get_float32_matmul_precision() == allowed
    finally:
        torch.set_float32_matmul_precision(before)
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("tf32", [False, True])
def test_products_are_in_tf32_on_a_gpu_alone(tf32):
    allowed = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [library.fp32_precision for library in allowed]
    with own_precision(tf32_on_gpu=tf32):
        assert [library.fp32_precision for library in allowed] == ["tf32" if tf32 else "ieee", "ieee"]
    assert [library.fp32_precision for library in allowed] == before
