"""Two and three processes with uneven shares against one: loss, gradients in value and norm, counts."""

from __future__ import annotations

import gc
import os
import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from retrofit_kernels import ContrastiveOptions, Guide, Threshold, distributed_info_nce, info_nce
from torch.nn.functional import normalize
from torch.testing import assert_close

EXACT = {"rtol": 1e-10, "atol": 1e-11}
QUERIES, DOCUMENTS = [3, 5, 0], [8, 5, 7]
CASES = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "weights": {"weights": True},
    "weights, none": {"weights": True, "reduction": "none"},
    "ids": {"ids": True},
    "several positives": {"several": True},
    "owners": {"owners": True},
    "query_to_query": {"query_to_query": True, "ids": True},
    "both_directions": {"both_directions": True, "several": True, "ids": True},
    "everything": {
        "weights": True,
        "ids": True,
        "several": True,
        "owners": True,
        "guide": True,
        "groups": True,
        "query_to_query": True,
        "document_to_document": True,
        "both_directions": True,
        "false_negatives": Threshold(0.3),
        "focal": 0.5,
        "hardness": 2.0,
        "prefixes": (3, 6),
    },
}


def batch(ranks: int, case: dict):
    """The whole batch, and the places where each rank's share begins."""
    generator = torch.Generator().manual_seed(7)
    rows, columns = sum(QUERIES[:ranks]), sum(DOCUMENTS[:ranks])

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    def vectors(count, dimension):
        return normalize(torch.randn(count, dimension, generator=generator, dtype=torch.float64), dim=1)

    tensors = {
        "queries": vectors(rows, 6),
        "documents": vectors(columns, 6),
        "weights": torch.arange(1.0, rows + 1).double(),
        "query_ids": integers(-1, 6, rows, 2),
        "document_ids": integers(-1, 6, columns),
        "query_groups": integers(0, 2, rows),
        "document_groups": integers(0, 2, columns),
        "guide_queries": vectors(rows, 4),
        "guide_documents": vectors(columns, 4),
        "positives": torch.zeros(rows, 2).long(),
        "owners": torch.full((columns,), -1),
    }
    for rank in range(ranks):
        query, document = sum(QUERIES[:rank]), sum(DOCUMENTS[:rank])
        for row in range(QUERIES[rank]):
            answers = document + integers(0, DOCUMENTS[rank], 2)
            tensors["positives"][query + row] = answers if row % 2 else torch.tensor([answers[0], -1])
        if QUERIES[rank]:
            tensors["owners"][document : document + 2] = query + integers(0, QUERIES[rank], 2)
    if not case.get("several"):
        tensors["positives"] = tensors["positives"][:, 0]
    return tensors


def share(tensors: dict, ranks: int, rank: int) -> dict:
    """One rank's part, with its own numbering."""
    query, document = sum(QUERIES[:rank]), sum(DOCUMENTS[:rank])
    parts = {}
    for name, tensor in tensors.items():
        of_documents = "document" in name or name == "owners"
        begin, count = (document, DOCUMENTS[rank]) if of_documents else (query, QUERIES[rank])
        parts[name] = tensor[begin : begin + count]
    for name, first in (("positives", document), ("owners", query)):
        parts[name] = torch.where(parts[name] == -1, -1, parts[name] - first)
    return parts


def arguments(tensors: dict, case: dict) -> dict:
    options = {
        key: value
        for key, value in case.items()
        if key not in ("several", "weights", "ids", "owners", "guide", "groups")
    }
    if case.get("weights"):
        options["weights"] = tensors["weights"]
    if case.get("ids"):
        options |= {name: tensors[name] for name in ("query_ids", "document_ids")}
    if case.get("groups"):
        options |= {name: tensors[name] for name in ("query_groups", "document_groups")}
    if case.get("owners"):
        options["owners"] = tensors["owners"]
    if case.get("guide"):
        options["guide"] = Guide(tensors["guide_queries"], tensors["guide_documents"])
    return {"positives": tensors["positives"], "options": ContrastiveOptions(**options)}


def differentiate(function, tensors: dict, case: dict, upstream: torch.Tensor):
    leaves = [
        tensors["queries"].clone(),
        tensors["documents"].clone(),
        torch.tensor(9.0, dtype=torch.float64),
    ]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    output = function(*leaves[:2], scale=leaves[2], **arguments(tensors, case))
    gradients = torch.autograd.grad(
        output.loss, leaves, upstream if output.loss.dim() else torch.tensor(2.0).double()
    )
    return output, gradients


def work(rank: int, ranks: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
    for case in CASES.values():
        tensors = batch(ranks, case)
        upstream = torch.linspace(-1, 2, sum(QUERIES[:ranks]), dtype=torch.float64)
        whole, expected = differentiate(info_nce, tensors, case, upstream)
        query, document = sum(QUERIES[:rank]), sum(DOCUMENTS[:rank])
        rows, columns = slice(query, query + QUERIES[rank]), slice(document, document + DOCUMENTS[rank])
        found, gradients = differentiate(
            distributed_info_nce, share(tensors, ranks, rank), case, upstream[rows]
        )
        assert_close(found.loss, whole.loss[rows] if whole.loss.dim() else whole.loss, **EXACT)
        assert_close(found.accuracy, whole.accuracy)
        assert found.masked == whole.masked
        assert_close(gradients[0], expected[0][rows], **EXACT)
        assert_close(gradients[1], expected[1][columns], **EXACT)
        dist.all_reduce(gradients[2])
        assert_close(gradients[2], expected[2], **EXACT)
    check_half_precision(rank, ranks)
    check_shared_parameter_under_ddp(rank, ranks)
    check_weights_with_a_scale_of_16_bits(rank, ranks)
    check_what_differs_is_refused_everywhere(rank)
    check_a_refusal_reaches_all(rank)
    # DDP's reducer stands in a reference cycle and holds the group: left to the interpreter's end, gloo's
    # threads would meet an interpreter that is gone, and abort the process (3 of 12 runs).
    gc.collect()
    dist.destroy_process_group()


def check_half_precision(rank: int, ranks: int) -> None:
    """Document gradients are added up before they are rounded to bf16: one rounding, not one per rank."""
    tensors = batch(ranks, {})
    rounded = {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    own = share(rounded, ranks, rank)
    queries, documents = own["queries"], own["documents"].requires_grad_()
    distributed_info_nce(queries, documents, scale=9.0, positives=own["positives"]).loss.backward()
    exact = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in rounded.items()
    }
    leaf = exact["documents"].requires_grad_()
    info_nce(exact["queries"], leaf, scale=9.0, positives=exact["positives"]).loss.backward()
    document = sum(DOCUMENTS[:rank])
    expected = leaf.grad[document : document + DOCUMENTS[rank]].bfloat16()
    assert_close(documents.grad, expected, rtol=2**-8, atol=1e-6)


def check_shared_parameter_under_ddp(rank: int, ranks: int) -> None:
    """Averaged over ranks, times their number, the gradient is that of one process, in norm too."""
    tensors = batch(ranks, {})
    torch.manual_seed(1)
    layer = torch.nn.Linear(6, 4).double()
    model = torch.nn.parallel.DistributedDataParallel(layer)
    own = share(tensors, ranks, rank)
    both = model(torch.cat([own["queries"], own["documents"]]))
    queries, documents = both.split([len(own["queries"]), len(own["documents"])])
    loss = distributed_info_nce(queries, documents, scale=9.0, positives=own["positives"]).loss
    (loss * ranks).backward()
    found = layer.weight.grad.clone()
    layer.zero_grad()
    info_nce(
        layer(tensors["queries"]), layer(tensors["documents"]), scale=9.0, positives=tensors["positives"]
    ).loss.backward()
    assert_close(found, layer.weight.grad, **EXACT)


def check_weights_with_a_scale_of_16_bits(rank: int, ranks: int) -> None:
    """Weights and their total stay in fp32: bf16 would round them, and fp16 ends at 65504."""
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in batch(ranks, {}).items()
    }
    tensors["weights"] = tensors["weights"] * 10007.3
    own = share(tensors, ranks, rank)
    for kind in (torch.bfloat16, torch.float16):
        scale = torch.tensor(9.0, dtype=kind)
        found, whole = (
            function(
                part["queries"], part["documents"], scale=scale, **arguments(part, {"weights": True})
            ).loss
            for function, part in ((distributed_info_nce, own), (info_nce, tensors))
        )
        assert_close(found, whole, rtol=1e-6, atol=0)


def check_what_differs_is_refused_everywhere(rank: int) -> None:
    """Rank 0 has the first of each pair, all others the second. Not agreed on, some of these would hang."""
    ids, square = torch.arange(2), torch.eye(2, 4)
    pairs = [
        ("weights", {"weights": torch.ones(2)}, {}),
        ("reduction", {"reduction": "none"}, {"reduction": "mean"}),
        ("query_ids_per_query", {"query_ids": ids, "document_ids": ids}, {}),
        ("groups", {"query_groups": ids, "document_groups": ids}, {}),
        ("owners", {"owners": ids}, {}),
        ("guide", {"guide": Guide(square, square)}, {}),
        ("hardness", {"hardness": 1.0}, {"hardness": 2.0}),
        ("prefixes", {"prefixes": (2, 4)}, {"prefixes": (1, 4)}),
        ("false_negatives", {"false_negatives": Threshold(0.1)}, {}),
    ]
    for name, first, others in pairs:
        options = ContrastiveOptions(**(others if rank else first))
        with pytest.raises(
            ValueError, match=f"^{name} must be the same on all ranks, but is .* rank {rank} "
        ):
            distributed_info_nce(square, square, scale=1.0, options=options)
    wide, double = torch.eye(2, 4 + rank), square.to(torch.float32 if rank else torch.float64)
    learning = square.clone().requires_grad_(rank > 0)
    for name, queries in (("dimension", wide), ("dtype", double), ("requires_grad", learning)):
        with pytest.raises(ValueError, match=f"^{name} must be the same on all ranks, but is"):
            distributed_info_nce(queries, queries, scale=1.0)


def check_a_refusal_reaches_all(rank: int) -> None:
    """A check that fails on one process fails on all: the others do not wait for its tensors."""
    for changes in ({"scale": -1.0}, {"queries": "text"}, {"positives": torch.tensor([0, 9])}):
        given = {"queries": torch.eye(2, 4), "documents": torch.eye(2, 4), "scale": 1.0}
        given |= {} if rank else changes
        message = (
            "^distributed_info_nce: rank 0 refused its arguments" if rank else f"^{next(iter(changes))} "
        )
        with pytest.raises((TypeError, ValueError), match=message):
            distributed_info_nce(given.pop("queries"), given.pop("documents"), **given)


@pytest.mark.parametrize("ranks", [2, 3])
def test_equal_to_one_process(ranks):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(work, args=(ranks, port), nprocs=ranks, start_method="forkserver")


def test_without_a_process_group():
    with pytest.raises(RuntimeError, match="init_process_group"):
        distributed_info_nce(torch.eye(2), torch.eye(2), scale=1.0)
