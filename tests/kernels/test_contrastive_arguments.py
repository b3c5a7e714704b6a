"""A wrong argument of info_nce is named, with its shape and what is allowed."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from retrofit_kernels import ContrastiveOptions, Guide, Threshold, info_nce
from retrofit_kernels._loss import operation
from retrofit_kernels._shared import backend

Q, D = torch.eye(2, 4), torch.eye(3, 4)
IDS = torch.arange(3)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"queries": Q[0]}, ValueError, r"queries must be a matrix .* shape \(4,\)"),
        ({"documents": D[None]}, ValueError, r"documents must be a matrix .* shape \(1, 3, 4\)"),
        ({"queries": Q[:, :0]}, ValueError, r"queries must be a matrix .* shape \(2, 0\)"),
        ({"queries": Q.long()}, TypeError, r"queries must be fp16, bf16, fp32 or fp64.*int64"),
        ({"queries": Q.tolist()}, TypeError, r"queries must be a torch.Tensor, not list"),
        ({"documents": D[:, :3]}, ValueError, r"same dimension.*\(2, 4\) and \(3, 3\)"),
        ({"documents": D.double()}, TypeError, r"one dtype.*float32 and torch.float64"),
        ({"documents": D.to("meta")}, ValueError, r"one device.*cpu and meta"),
        ({"documents": D[:1]}, ValueError, r"documents must hold a positive for each of the 2 queries"),
        ({"scale": 0.0}, ValueError, r"scale .* above 0, not 0.0"),
        ({"scale": -1}, ValueError, r"scale .* above 0, not -1"),
        ({"scale": float("nan")}, ValueError, r"scale .* not nan"),
        ({"scale": torch.tensor(-2.0)}, ValueError, r"scale .* not -2"),
        ({"scale": torch.ones(1)}, ValueError, r"scale must be a number or a 0-d tensor.*\(1,\)"),
        ({"scale": torch.tensor(2)}, TypeError, r"scale must be floating point.*int64"),
        ({"scale": 10**400}, ValueError, r"scale .* from 6e-08 to 2e\+07 .*, not 1000"),
        ({"scale": 1e39}, ValueError, r"scale .* to 2e\+07 for logits in torch.float32, not 1e\+39"),
        ({"scale": 1e-40}, ValueError, r"scale .* from 6e-08 to 2e\+07 .*, not 1e-40"),
        ({"scale": torch.tensor(1e39, dtype=torch.float64)}, ValueError, r"scale .* from 6e-08 .* 1e\+39"),
        ({"scale": torch.tensor(2.0, device="meta")}, ValueError, r"scale must hold values, but has .*meta"),
        ({"queries": Q.to_sparse()}, TypeError, r"queries must be a dense tensor, but .* torch.sparse_coo"),
        ({"documents": D.to_sparse_csr()}, TypeError, r"documents must be a dense tensor"),
        ({"positives": IDS[:2].to_sparse()}, TypeError, r"positives must be a dense tensor"),
        (
            {"queries": Q.to("meta"), "documents": D.to("meta")},
            ValueError,
            r"queries must hold values.*meta",
        ),
        ({"options": {}}, TypeError, r"options must be a ContrastiveOptions, not dict"),
        ({"options": 0}, TypeError, r"options must be a ContrastiveOptions, not int"),
        (
            {"options": ContrastiveOptions(query_to_query=1)},
            TypeError,
            r"query_to_query must be a bool, not int",
        ),
        (
            {"options": ContrastiveOptions(document_to_document="no")},
            TypeError,
            r"document_to_document must be a bool, not str",
        ),
        (
            {"options": ContrastiveOptions(both_directions="no")},
            TypeError,
            r"both_directions must be a bool, not str",
        ),
        (
            {"options": ContrastiveOptions(check_finite=None)},
            TypeError,
            r"check_finite must be a bool, not NoneType",
        ),
        (
            {"options": ContrastiveOptions(hardness=10**400)},
            ValueError,
            r"hardness must be a finite number of at least 0 and at most 2e\+07, not 10000",
        ),
        (
            {"options": ContrastiveOptions(prefixes=(4,), prefix_weights=(10**400,))},
            ValueError,
            r"prefix_weights must be 1 numbers of at least 0",
        ),
        ({"scale": True}, TypeError, r"scale must be a number or a 0-d tensor, not bool"),
        ({"scale": "20"}, TypeError, r"scale must be a number or a 0-d tensor, not str"),
        ({"positives": torch.tensor([0, 3])}, ValueError, r"positives must be from 0 to 2 .* 0 … 3"),
        ({"positives": torch.tensor([-1, 1])}, ValueError, r"positives must be from 0 to 2 .* -1 … 1"),
        (
            {"positives": IDS},
            ValueError,
            r"positives must have shape \(2,\) or \(2, any\), but has shape \(3,\)",
        ),
        ({"positives": IDS[:2].int()}, TypeError, r"positives must be torch.int64.*int32"),
        (
            {"options": ContrastiveOptions(query_ids=IDS[:2])},
            ValueError,
            r"together, but document_ids is None",
        ),
        ({"options": ContrastiveOptions(document_ids=IDS)}, ValueError, r"together, but query_ids is None"),
        (
            {"options": ContrastiveOptions(query_ids=IDS, document_ids=IDS)},
            ValueError,
            r"query_ids must have shape \(2,\) or \(2, any\), but has shape \(3,\)",
        ),
        (
            {"options": ContrastiveOptions(query_ids=IDS[:2], document_ids=IDS[:2])},
            ValueError,
            r"document_ids must have shape \(3,\), but has shape \(2,\)",
        ),
        (
            {"options": ContrastiveOptions(query_ids=IDS[:2].to("meta"), document_ids=IDS)},
            ValueError,
            r"query_ids must be on cpu.*meta",
        ),
        ({"options": ContrastiveOptions(reduction="max")}, ValueError, r"reduction must be .* not 'max'"),
        (
            {"options": ContrastiveOptions(strip_bytes=0)},
            ValueError,
            r"strip_bytes must be a positive .* not 0",
        ),
        ({"options": ContrastiveOptions(strip_bytes=1.5)}, TypeError, r"strip_bytes must be a whole number"),
        (
            {"positives": torch.tensor([[0, 1], [-1, -1]])},
            ValueError,
            r"positives .* each query, but row 1 is all -1",
        ),
        (
            {"positives": torch.tensor([[0, 1], [2, -2]])},
            ValueError,
            r"0 to 2 .* or -1 for padding, .* -2 … 2",
        ),
        ({"positives": IDS[:0].view(2, 0)}, ValueError, r"positives must have a column or more.*\(2, 0\)"),
        ({"options": ContrastiveOptions(query_groups=IDS[:2])}, ValueError, r"document_groups is None"),
        (
            {"options": ContrastiveOptions(query_groups=IDS, document_groups=IDS)},
            ValueError,
            r"query_groups must have shape \(2,\), but has shape \(3,\)",
        ),
        ({"options": ContrastiveOptions(owners=IDS[:2])}, ValueError, r"owners must have shape \(3,\)"),
        ({"options": ContrastiveOptions(owners=D[0])}, TypeError, r"owners must be torch.int64"),
        (
            {"options": ContrastiveOptions(owners=torch.tensor([0, 2, -1]))},
            ValueError,
            r"owners must be from 0 to 1 \(rows of queries\), or -1 .* reach -1 … 2",
        ),
        (
            {"options": ContrastiveOptions(owners=torch.tensor([0, -2, -1]))},
            ValueError,
            r"owners must be from 0 to 1 .* reach -2 … 0",
        ),
        ({"options": {"focal": 1.0}}, TypeError, r"options must be a ContrastiveOptions, not dict"),
        (
            {"options": ContrastiveOptions(false_negatives=0.1)},
            TypeError,
            r"false_negatives must be a Threshold, not float",
        ),
        ({"options": ContrastiveOptions(guide=(Q, D))}, TypeError, r"guide must be a Guide, not tuple"),
        (
            {"options": ContrastiveOptions(guide=Guide(Q, D, 0.5))},
            TypeError,
            r"guide.threshold must be a Threshold, not float",
        ),
        ({"options": ContrastiveOptions(weights=IDS[:2])}, TypeError, r"weights must be fp16, bf16, fp32 or"),
        (
            {"options": ContrastiveOptions(weights=-Q[0, :2])},
            ValueError,
            r"weights must be finite and at least 0",
        ),
        (
            {"options": ContrastiveOptions(guide=Guide(Q, D[:2]))},
            ValueError,
            r"guide.documents must have shape \(3",
        ),
        (
            {"options": ContrastiveOptions(guide=Guide(Q, D[:, :2]))},
            ValueError,
            r"guide.queries and guide.documents",
        ),
        (
            {"options": ContrastiveOptions(guide=Guide(Q, D.half()))},
            TypeError,
            r"guide.queries and guide.documents must have one dtype",
        ),
        (
            {"options": ContrastiveOptions(guide=Guide(Q, D, Threshold(-0.5, "percentage")))},
            ValueError,
            r"guide.threshold.value must be above 0 with the rule 'percentage'.* not -0.5",
        ),
        (
            {"options": ContrastiveOptions(false_negatives=Threshold(0.0, "percentage"))},
            ValueError,
            r"false_negatives.value must be above 0",
        ),
        (
            {"options": ContrastiveOptions(false_negatives=Threshold(0.1, "ratio"))},
            ValueError,
            r"false_negatives.rule must be 'absolute', 'margin' or 'percentage', not 'ratio'",
        ),
        (
            {"options": ContrastiveOptions(false_negatives=Threshold(float("nan")))},
            ValueError,
            r"false_negatives.value must be a finite number, not nan",
        ),
        ({"options": ContrastiveOptions(hardness=-1.0)}, ValueError, r"hardness .* at least 0 .*, not -1"),
        ({"options": ContrastiveOptions(focal="1")}, TypeError, r"focal must be a number, not str"),
        ({"options": ContrastiveOptions(prefixes=(2, 2))}, ValueError, r"prefixes must ascend .* at most 4"),
        ({"options": ContrastiveOptions(prefixes=(2, 5))}, ValueError, r"prefixes must ascend .* \(2, 5\)"),
        ({"options": ContrastiveOptions(prefixes=(2.0, 4))}, TypeError, r"prefixes must be a tuple of whole"),
        ({"options": ContrastiveOptions(prefixes=4)}, TypeError, r"prefixes must be a tuple .*, not 4"),
        (
            {"options": ContrastiveOptions(prefixes=(2, 4), prefix_weights=("1", 2))},
            TypeError,
            r"prefix_weights must be a tuple of numbers",
        ),
        ({"options": ContrastiveOptions(prefixes=())}, ValueError, r"prefixes must ascend"),
        ({"options": ContrastiveOptions(prefix_weights=(1.0,))}, ValueError, r"prefixes is None"),
        (
            {"options": ContrastiveOptions(prefixes=(2, 4), prefix_weights=(1.0,))},
            ValueError,
            r"prefix_weights must be 2 numbers of at least 0, not \(1.0,\)",
        ),
        ({"options": ContrastiveOptions(precision="fp32")}, ValueError, r"precision must be .* not 'fp32'"),
        ({"options": ContrastiveOptions(backend="cuda")}, ValueError, r"backend must be 'auto', 'torch' or"),
        (
            {"queries": Q * torch.inf, "options": ContrastiveOptions(check_finite=True)},
            ValueError,
            r"queries must be finite, but row 0 is not",
        ),
        (
            {"options": ContrastiveOptions(check_finite=True, guide=Guide(Q, D * torch.nan))},
            ValueError,
            r"guide.documents must be finite, but row 0 is not",
        ),
        ({"scale": 2.0**-30}, ValueError, r"scale .* from 6e-08 to 2e\+07 .*, not 9.31"),
        ({"scale": 2.0**30}, ValueError, r"scale .* from 6e-08 to 2e\+07 .*, not 1073"),
    ],
)
def test_wrong_argument_is_named(changes, kind, message, monkeypatch):
    """In one line, and before anything is computed."""
    monkeypatch.setattr(operation, "contrast", None)
    arguments = {"queries": Q, "documents": D, "scale": 20.0} | changes
    with pytest.raises(kind, match=message) as error:
        info_nce(arguments.pop("queries"), arguments.pop("documents"), **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_and_least_scales_give_numbers(dtype):
    largest = 2.0 ** (24 if dtype == torch.float32 else 900)
    for scale in (largest, 1 / largest):
        leaves = [side.to(dtype).requires_grad_() for side in (Q + 0.5, D.flip(1) + 0.1)]
        factor = torch.tensor(scale, dtype=dtype, requires_grad=True)
        options = ContrastiveOptions(prefixes=(2, 4), both_directions=True, query_to_query=True)
        info_nce(*leaves, scale=factor, options=options).loss.backward()
        assert all(leaf.grad.isfinite().all() for leaf in (*leaves, factor))


def test_right_arguments_pass():
    info_nce(Q, D, scale=20.0)
    info_nce(Q, D, scale=2, positives=IDS[1:])
    info_nce(Q, D, scale=1.0, options=ContrastiveOptions(query_ids=IDS[:2, None], document_ids=IDS))


def test_triton_needs_a_gpu_of_compute_capability_8(monkeypatch):
    options = ContrastiveOptions(backend="triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"backend 'triton' needs an NVIDIA GPU, not shape \(2, 4\).*cpu"):
        info_nce(Q, D, scale=1.0, options=options)
    turing = mock.Mock(dtype=torch.float16, device=torch.device("cuda"))
    with mock.patch.object(torch.cuda, "get_device_capability", return_value=(7, 5)):
        assert "compute capability 8.0 or more, not 7.5" in backend.why_not_triton(turing)
        assert not backend.takes_triton(turing)
    with mock.patch.object(torch.cuda, "get_device_capability", return_value=(8, 0)):
        assert backend.takes_triton(turing)
