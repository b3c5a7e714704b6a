"""info_nce inside what trainers wrap around it: torch.compile, gradient checkpointing, shared tensors."""

from __future__ import annotations

import pytest
import torch
from retrofit_kernels import ContrastiveOptions, Guide, Threshold, info_nce
from retrofit_kernels._loss import operation
from retrofit_kernels.contrastive import operands_of, settings_of
from retrofit_kernels.reference import reference_info_nce
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.testing import assert_close


def options(reduction: str) -> ContrastiveOptions:
    return ContrastiveOptions(
        query_ids=torch.arange(6) % 4,
        document_ids=torch.arange(9) % 5,
        guide=Guide(torch.eye(6, 9), torch.eye(9), Threshold(0.5, "absolute")),
        query_to_query=True,
        both_directions=True,
        prefixes=(4, 8),
        reduction=reduction,
    )


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_operation_keeps_torchs_rules(embeddings, reduction):
    """Schema, aliasing, shapes without data, autograd registration, and tracing forward and backward."""
    queries, documents = embeddings(6, 8, 1).requires_grad_(), embeddings(9, 8, 2).requires_grad_()
    scale = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    positives = torch.arange(6).unsqueeze(1)
    own, right = operands_of(queries, documents, positives, options(reduction))
    operands = operation.Operands(own, right, own, scale, None)
    arguments = operation.arguments_of(operands, settings_of(queries, options(reduction)))
    torch.library.opcheck(operation.info_nce_operation, arguments)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_it_stays_one_operation_and_gives_the_same(embeddings, gradients, reduction):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def step(queries, documents, scale):
        normal = torch.nn.functional.normalize
        return (
            2
            * info_nce(
                normal(queries, dim=1),
                normal(documents, dim=1),
                scale=scale.exp(),
                options=options(reduction),
            ).loss
        )

    operands = embeddings(6, 8, 1), embeddings(9, 8, 2), torch.tensor(3.0, dtype=torch.float64)
    compiled = torch.compile(step, backend=backend, fullgraph=True)
    assert_close(gradients(compiled, *operands), gradients(step, *operands), rtol=0, atol=0)
    calls = [str(node.target) for graph in graphs for node in graph.graph.nodes if node.op == "call_function"]
    assert sum("retrofit_kernels.info_nce" in call for call in calls) == 1
    assert not any("mm" in call for call in calls)


def test_compiled_through_autograd(embeddings, gradients):
    """aot_eager traces the backward too."""

    def step(queries, documents, scale):
        return info_nce(queries * 1.5, documents, scale=scale).loss

    operands = embeddings(6, 8, 1), embeddings(9, 8, 2), torch.tensor(20.0, dtype=torch.float64)
    compiled = torch.compile(step, backend="aot_eager")
    assert_close(gradients(compiled, *operands), gradients(step, *operands))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_once_for_all_sizes_of_a_batch(embeddings, gradients, reduction):
    """The second size makes torch.compile take them for any number; then no other one compiles again."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    def step(queries, documents, scale):
        chosen = ContrastiveOptions(reduction=reduction)
        return info_nce(queries * 1.5, documents, scale=scale, options=chosen).loss.sum()

    compiled = torch.compile(step, backend=aot_autograd(fw_compiler=backend), fullgraph=True)
    for rows in (6, 7, 9, 12, 15):
        operands = embeddings(rows, 8, 1), embeddings(2 * rows, 8, 2), torch.tensor(20.0).double()
        assert_close(gradients(compiled, *operands), gradients(step, *operands))
    assert len(graphs) <= 4  # forward and backward, of one size and of any


def test_compiled_with_options_that_change(embeddings):
    """From the second value on torch.compile takes a number for any number; the graph stays whole."""
    queries, documents = embeddings(6, 8, 1), embeddings(9, 8, 2)
    compiled = torch.compile(
        lambda chosen: info_nce(queries, documents, scale=2.0, options=chosen).loss,
        backend="eager",
        fullgraph=True,
    )
    for number in (0.5, 0.75, 1.25):
        chosen = ContrastiveOptions(hardness=number, focal=number, false_negatives=Threshold(number / 4))
        expected = info_nce(queries, documents, scale=2.0, options=chosen).loss
        assert_close(compiled(chosen), expected, rtol=0, atol=0)


def test_under_gradient_checkpointing(embeddings, gradients):
    def step(queries, documents):
        return info_nce(torch.tanh(queries), documents, scale=20.0).loss

    def checkpointed(queries, documents):
        return torch.utils.checkpoint.checkpoint(step, queries, documents, use_reentrant=False)

    operands = embeddings(6, 8, 1), embeddings(9, 8, 2)
    assert_close(gradients(checkpointed, *operands), gradients(step, *operands), rtol=0, atol=0)


def test_same_tensor_on_both_sides(embeddings):
    """Gradients of both roles meet in one leaf, as in training on text against itself."""
    vectors = embeddings(6, 8, 1).requires_grad_()
    positives = torch.arange(6).roll(1)
    info_nce(vectors, vectors, scale=20.0, positives=positives).loss.backward()
    expected = torch.autograd.grad(
        reference_info_nce(vectors, vectors, scale=20.0, positives=positives), vectors
    )
    assert_close(vectors.grad, expected[0])
