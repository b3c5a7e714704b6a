"""A wrong argument of info_nce is named, with its shape and what is allowed."""

from __future__ import annotations

import pytest
import torch
from retrofit_kernels import ContrastiveOptions, info_nce

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
        ({"scale": "20"}, TypeError, r"scale must be a number or a 0-d tensor, not str"),
        ({"positives": torch.tensor([0, 3])}, ValueError, r"positives must be from 0 to 2 .* 0 … 3"),
        ({"positives": torch.tensor([-1, 1])}, ValueError, r"positives must be from 0 to 2 .* -1 … 1"),
        ({"positives": IDS}, ValueError, r"positives must have shape \(2,\), but has shape \(3,\)"),
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
    ],
)
def test_wrong_argument_is_named(changes, kind, message):
    arguments = {"queries": Q, "documents": D, "scale": 20.0} | changes
    with pytest.raises(kind, match=message):
        info_nce(arguments.pop("queries"), arguments.pop("documents"), **arguments)


def test_right_arguments_pass():
    info_nce(Q, D, scale=20.0)
    info_nce(Q, D, scale=2, positives=IDS[1:])
    info_nce(Q, D, scale=1.0, options=ContrastiveOptions(query_ids=IDS[:2, None], document_ids=IDS))
