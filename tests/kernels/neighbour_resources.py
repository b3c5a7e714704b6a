"""What the search's Triton kernels need on GPUs that are not there: ``python neighbour_resources.py``.

Prints one JSON object: registers, spills and so on of each case. ``--write`` puts it into
golden/neighbours.json, among the figures of this version of Triton. TRITON_INTERPRET must be unset.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ahead_of_time import compile_kernel, print_resources
from retrofit_kernels._search.bins import lane_bins, rescore
from retrofit_kernels._search.configs import lane_bin_config
from retrofit_kernels._search.launch import RESCORED, RESCORED_DEPTH
from retrofit_kernels.configs import SHARED_MEMORY

GOLDEN = Path(__file__).parent / "golden" / "neighbours.json"
ARCHITECTURES = [capability for capability in SHARED_MEMORY if capability >= 80]
ITEMSIZES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class Case:
    """A kernel as it is launched; the dimension is an argument of it, and no constant.

    Attributes:
        capability: 80 for sm_80.
        kernel: "lane_bins" or "rescore".
        dtype: of the embeddings.
        certified: exact mode.
        ids: whether ids exclude.
        ceiling: whether there is one.
        even: whether the dimension is a multiple of the tile's depth.
    """

    capability: int
    kernel: str = "lane_bins"
    dtype: str = "bf16"
    certified: bool = True
    ids: bool = True
    ceiling: bool = True
    even: bool = True

    def __str__(self) -> str:
        words = [f"sm_{self.capability}", self.kernel, self.dtype]
        if self.kernel == "lane_bins":
            words += ["exact" if self.certified else "approximate"]
            words += ["ids"] * self.ids + ["ceiling"] * self.ceiling
        return " ".join(words + ["uneven"] * (not self.even))


def all_cases() -> list[Case]:
    """Every type with all exclusions, every set of exclusions, uneven dimensions, on every architecture."""
    found = []
    for capability in ARCHITECTURES:
        for certified in (True, False):
            found += [Case(capability, dtype=dtype, certified=certified) for dtype in ITEMSIZES]
            found += [
                Case(capability, certified=certified, ids=ids, ceiling=ceiling)
                for ids, ceiling in ((True, False), (False, True), (False, False))
            ]
            found += [
                Case(capability, dtype=dtype, certified=certified, even=False) for dtype in ("bf16", "fp32")
            ]
        found += [Case(capability, "rescore", dtype) for dtype in ITEMSIZES]
        found += [Case(capability, "rescore", even=False)]
    return found


def usual_cases() -> list[Case]:
    """Every type, mode and kernel with all exclusions, even and uneven."""
    return [case for case in all_cases() if case.ids and case.ceiling]


def few_cases() -> list[Case]:
    """Enough to see that another version of Triton makes usable code."""
    return [
        Case(capability, certified=certified) for capability in (80, 90, 120) for certified in (True, False)
    ]


def measure(case: Case) -> dict[str, int]:
    """Compile it, and count."""
    made = _rescore(case) if case.kernel == "rescore" else _lane_bins(case)
    return asdict(compile_kernel(**made, capability=case.capability))


def _lane_bins(case: Case) -> dict[str, object]:
    tile = lane_bin_config(divmod(case.capability, 10), ITEMSIZES[case.dtype], 768 if case.even else 100)
    names = ["floor", "best", *["query_ids", "id_counts", "document_ids"] * case.ids]
    names += ["second", "lost"] * case.certified
    signature = dict.fromkeys(names, "*i32") | dict.fromkeys(["queries", "documents"], f"*{case.dtype}")
    signature |= {"ceiling": "*fp32"} if case.ceiling else {}
    signature |= dict.fromkeys(["rows", "columns", "dimension", "stride", "ids", "tiles", "splits"], "i32")
    constants = {"IDS": case.ids, "CEILING": case.ceiling, "CERTIFIED": case.certified, "EVEN": case.even}
    constants |= {"BLOCK_M": tile.rows, "BLOCK_N": tile.columns, "BLOCK_D": tile.depth}
    return _arguments(lane_bins, signature, constants, case.even) | {
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _rescore(case: Case) -> dict[str, object]:
    signature = dict.fromkeys(["queries", "documents"], f"*{case.dtype}")
    signature |= {"candidates": "*i32", "scores": "*fp32"}
    signature |= dict.fromkeys(["dimension", "stride", "count"], "i32")
    constants = {"EVEN": case.even, "BLOCK_C": RESCORED, "BLOCK_D": RESCORED_DEPTH}
    return _arguments(rescore, signature, constants, case.even) | {"num_warps": 4, "num_stages": 3}


def _arguments(kernel, signature, constants, even: bool) -> dict[str, object]:
    """What a launch leaves out is None; pointers are aligned, and so is an even dimension."""
    left_out = dict.fromkeys(set(kernel.arg_names) - signature.keys() - constants.keys())
    aligned = [name for name, kind in signature.items() if kind.startswith("*")]
    aligned += ["dimension", "stride"] if even else []
    return {
        "kernel": kernel,
        "signature": signature,
        "constexprs": constants | left_out,
        "divisible_by_16": aligned,
    }


if __name__ == "__main__":
    print_resources(
        __doc__, measure, {"usual": usual_cases(), "few": few_cases(), "all": all_cases()}, GOLDEN
    )
