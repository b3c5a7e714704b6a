"""info_nce against the dense formula: every option alone, all together, and the bookkeeping of autograd."""

from __future__ import annotations

from itertools import product
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retrofit_kernels import ContrastiveOptions, info_nce
from retrofit_kernels._loss import strip_torch
from retrofit_kernels.reference import reference_info_nce, reference_masked
from torch.testing import assert_close

EXACT = {"rtol": 1e-11, "atol": 1e-12}
SCALE = torch.tensor(20.0, dtype=torch.float64)


def ours(**keywords):
    return lambda queries, documents, scale: info_nce(queries, documents, scale=scale, **keywords).loss


def oracle(**keywords):
    return lambda queries, documents, scale: reference_info_nce(queries, documents, scale=scale, **keywords)


@pytest.fixture
def agree(embeddings, gradients):
    """Checks loss and all three gradients against the dense formula in fp64."""

    def check(rows, columns, *, scale=SCALE, dimension=5, **keywords):
        operands = embeddings(rows, dimension, 1), embeddings(columns, dimension, 2), scale
        found = gradients(ours(**keywords), *operands)
        assert_close(found, gradients(oracle(**keywords), *operands), **EXACT)

    return check


def test_hand_computed_value():
    """Two equal queries, orthogonal documents, scale 1: log(1 + e^-1) and log(1 + e^1)."""
    output = info_nce(torch.eye(2)[[0, 0]], torch.eye(2), scale=1.0)
    expected = (torch.tensor(-1.0).exp().log1p() + torch.tensor(1.0).exp().log1p()) / 2
    assert_close(output.loss, expected)
    assert output.accuracy == 0.5
    assert output.masked == 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions(agree, reduction):
    agree(7, 11, options=ContrastiveOptions(reduction=reduction))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck(embeddings, reduction):
    options = ContrastiveOptions(
        query_ids=torch.tensor([[1, -1], [2, 3], [1, 2]]),
        document_ids=torch.tensor([1, 2, 3, 1, 2, 9]),
        reduction=reduction,
        strip_bytes=1,
    )
    operands = [embeddings(3, 4, 1), embeddings(6, 4, 2), torch.tensor(5.0, dtype=torch.float64)]
    leaves = [operand.requires_grad_() for operand in operands]
    assert torch.autograd.gradcheck(ours(options=options, positives=torch.tensor([3, 4, 0])), leaves)


@pytest.mark.parametrize("strip_bytes", [1, 8 * 11 * 2, 8 * 11 * 3, 1 << 20])
def test_strips_that_do_not_divide_the_batch(agree, strip_bytes):
    agree(7, 11, options=ContrastiveOptions(strip_bytes=strip_bytes))


def test_column_tiles_that_do_not_divide_the_documents(agree):
    ids = torch.arange(150) % 40
    with mock.patch.object(strip_torch, "CPU_TILE_BYTES", 1):
        agree(9, 150, options=ContrastiveOptions(query_ids=ids[:9], document_ids=ids))


def test_several_queries_share_a_positive(agree):
    agree(6, 4, positives=torch.tensor([3, 3, 0, 3, 1, 0]))


def test_duplicates_are_masked_and_counted(agree, embeddings):
    options = ContrastiveOptions(
        query_ids=torch.tensor([5, 6, 7, -1]), document_ids=torch.tensor([5, 6, 8, -1, 5, 5, 7])
    )
    agree(4, 7, options=options)
    output = info_nce(embeddings(4, 5, 1), embeddings(7, 5, 2), scale=1.0, options=options)
    assert (
        output.masked == 3
    )  # columns 4 and 5 for the first query, column 6 for the third; -1 matches nothing


def test_repeated_query_ids_are_counted_once(agree):
    options = ContrastiveOptions(
        query_ids=torch.tensor([[3, 3, 4, 3]] * 2), document_ids=torch.tensor([3, 1, 4])
    )
    agree(2, 3, options=options)
    assert info_nce(torch.eye(2, 5), torch.eye(3, 5), scale=1.0, options=options).masked == 3


def test_rows_whose_negatives_are_all_masked(embeddings, gradients):
    options = ContrastiveOptions(query_ids=torch.zeros(3).long(), document_ids=torch.zeros(5).long())
    operands = embeddings(3, 4, 1), embeddings(5, 4, 2), SCALE
    assert all(not tensor.any() for tensor in gradients(ours(options=options), *operands))
    output = info_nce(*operands[:2], scale=SCALE, options=options)
    assert output.accuracy == 1
    assert output.masked == 3 * 5 - 3


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 3), (1, 1)])
def test_without_negatives_loss_and_gradients_are_zero(embeddings, gradients, rows, columns):
    found = gradients(ours(), embeddings(rows, 3, 1), embeddings(columns, 3, 2), SCALE)
    assert [tensor.shape for tensor in found] == [(), (rows, 3), (columns, 3), ()]
    assert all(not tensor.any() for tensor in found)


def test_one_query(agree):
    agree(1, 4)
    agree(1, 2, positives=torch.tensor([1]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_combination(agree, embeddings, data):
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(9, 140))
    seed, width = data.draw(st.integers(0, 2**31)), data.draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(seed)
    ids = data.draw(st.sampled_from([2, 5, 200]))
    query_ids = torch.randint(-1, ids, (rows, width), generator=generator)
    if width == 1 and data.draw(st.booleans()):
        query_ids = query_ids.squeeze(1)
    document_ids = torch.randint(-1, ids, (columns,), generator=generator)
    masks = {"query_ids": query_ids, "document_ids": document_ids} if data.draw(st.booleans()) else {}
    options = ContrastiveOptions(
        **masks,
        reduction=data.draw(st.sampled_from(["mean", "sum", "none"])),
        strip_bytes=data.draw(st.sampled_from([1, 5000, 1 << 20])),
    )
    positives = torch.randint(0, columns, (rows,), generator=generator) if data.draw(st.booleans()) else None
    scale = torch.tensor(data.draw(st.sampled_from([1.0, 20.0, 200.0])), dtype=torch.float64)
    with mock.patch.object(strip_torch, "CPU_TILE_BYTES", data.draw(st.sampled_from([1, 1 << 20]))):
        agree(rows, columns, positives=positives, options=options, scale=scale)
    output = info_nce(
        embeddings(rows, 5, 1), embeddings(columns, 5, 2), scale=scale, positives=positives, options=options
    )
    own = torch.arange(rows) if positives is None else positives
    masked = reference_masked(own, columns, options)
    logits = (embeddings(rows, 5, 1) @ embeddings(columns, 5, 2).T).masked_fill(masked, -torch.inf)
    own_logits = logits.gather(1, own.unsqueeze(1))
    others = logits.scatter(1, own.unsqueeze(1), -torch.inf)
    assert output.masked == masked.sum()
    assert_close(output.accuracy, (others < own_logits).all(1).float().mean())


@pytest.mark.parametrize("needed", list(product([False, True], repeat=3)))
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_only_needed_gradients_are_computed(embeddings, flops, needed, reduction):
    """2u FLOP for the logits, 2u for queries or scale, 2u for documents; "none" makes the logits again."""
    rows, columns, dimension = 6, 8, 4
    operands = [embeddings(rows, dimension, 1), embeddings(columns, dimension, 2), torch.tensor(3.0).double()]
    for operand, need in zip(operands, needed, strict=True):
        operand.requires_grad_(need)
    whole = [operand.detach().clone().requires_grad_() for operand in operands]
    with flops() as counted:
        loss = ours(options=ContrastiveOptions(reduction=reduction))(*operands).sum()
        if any(needed):
            loss.backward()
    oracle(options=ContrastiveOptions(reduction=reduction))(*whole).sum().backward()
    for operand, other, need in zip(operands, whole, needed, strict=True):
        assert (operand.grad is not None) == need
        if need:
            assert_close(operand.grad, other.grad, **EXACT)
    products = 1 + (needed[0] or needed[2]) + needed[1] + (reduction == "none" and any(needed))
    assert counted() == products * 2 * rows * columns * dimension


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_only_the_logits_are_computed(embeddings, flops, context):
    operands = [embeddings(6, 4, 1).requires_grad_(), embeddings(8, 4, 2).requires_grad_()]
    with context(), flops() as counted:
        output = info_nce(*operands, scale=20.0)
    assert not output.loss.requires_grad
    assert counted() == 2 * 6 * 8 * 4
    assert_close(output.loss, reference_info_nce(*operands, scale=20.0).detach(), **EXACT)


def test_upstream_gradient_and_second_backward_of_the_same_graph(embeddings):
    queries, documents = embeddings(6, 4, 1).requires_grad_(), embeddings(8, 4, 2)
    loss = info_nce(queries, documents, scale=20.0).loss
    (expected,) = torch.autograd.grad(reference_info_nce(queries, documents, scale=20.0) * -3, queries)
    (loss * -3).backward(retain_graph=True)
    assert_close(queries.grad, expected, **EXACT)
    (loss * -3).backward()
    assert_close(queries.grad, 2 * expected, **EXACT)


@pytest.mark.parametrize("kept", [False, True])
def test_an_upstream_gradient_is_multiplied_in_place_unless_the_graph_is_kept(embeddings, kept):
    queries, documents = embeddings(6, 4, 1).requires_grad_(), embeddings(8, 4, 2)
    loss = info_nce(queries, documents, scale=20.0).loss
    made = loss.grad_fn.saved_tensors[0]
    expected = made * -3
    (found,) = torch.autograd.grad(loss, queries, torch.tensor(-3.0).double(), retain_graph=kept)
    assert_close(found, expected, rtol=0, atol=0)
    assert (found.data_ptr() == made.data_ptr()) != kept


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_derivative_is_refused(embeddings, reduction):
    queries = embeddings(3, 4, 1).requires_grad_()
    options = ContrastiveOptions(reduction=reduction)
    loss = info_nce(queries, embeddings(3, 4, 2), scale=1.0, options=options).loss.sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, queries, create_graph=True)


def test_non_contiguous_inputs(embeddings, gradients):
    queries, documents = embeddings(10, 14, 1)[::2, ::2], embeddings(7, 9, 2).T
    operands = queries, documents, SCALE
    assert not queries.is_contiguous()
    found = [info_nce(queries, documents, scale=SCALE).loss, *gradients(ours(), *operands)]
    expected = gradients(oracle(), *operands)
    assert_close(found, [expected[0], *expected], **EXACT)


def test_inputs_stay_untouched(embeddings, gradients):
    operands = embeddings(6, 4, 1), embeddings(8, 4, 2), SCALE
    before = [operand.clone() for operand in operands]
    info_nce(operands[0].requires_grad_(), operands[1], scale=operands[2]).loss.backward()
    assert all(torch.equal(*pair) for pair in zip(operands, before, strict=True))
