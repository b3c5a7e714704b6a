"""What the contrastive loss's Triton kernels need on GPUs that are not there: ``python strip_resources.py``.

Prints one JSON object: registers, spills and so on of each case. ``--write`` puts it into golden/strip.json,
among the figures of this version of Triton. The launcher itself is run, on CPU tensors, up to the
launch: what is compiled is what would be launched. TRITON_INTERPRET must be unset.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import triton
from ahead_of_time import compile_kernel, print_resources
from retrofit_kernels._loss import strip_triton
from retrofit_kernels._loss.problem import Columns, Rows, Term
from retrofit_kernels.configs import SHARED_MEMORY, strip_config

GOLDEN = Path(__file__).parent / "golden" / "strip.json"
ARCHITECTURES = [capability for capability in SHARED_MEMORY if capability >= 80]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int8: "*i8",
}
FLAGS = {name: {name} for name in ("ids", "groups", "owners", "threshold", "guide", "norms", "prefixes")}
FLAGS |= {"plain": set(), "masked": {"ids", "groups", "owners", "threshold"}}
FLAGS |= {"guided": FLAGS["masked"] | {"guide"}, "unit": FLAGS["masked"] | {"norms"}}
FLAGS |= {"nested": FLAGS["guided"] | {"prefixes"}}
"""Each rule alone, and the heaviest of each kind of the table. "norms": one prefix, made unit vectors."""
KINDS = ("plain", "ids", "masked", "guided", "nested")
DIMENSIONS = (384, 768, 1024)


@dataclass(frozen=True)
class Case:
    """A kernel as it is launched.

    Attributes:
        capability: 80 for sm_80.
        masks: what is masked, one of `FLAGS`.
        launch: "fill", "sums" (nothing stored), "largest" or "mix".
        dtype: of the embeddings.
        dimension: of the embeddings.
        precision: of products of fp32.
        rows: of the strip; Triton makes other code where a number is 1 or no multiple of 16.
        columns: of the strip.
        padding: room between the rows of the strip.
        guide: dtype of the guide's embeddings; by default that of the others.
        ids: of each query; a document has 2, or 1 where a query has 1. Other code is made for 1, and for 16.
    """

    capability: int
    masks: str
    launch: str = "fill"
    dtype: str = "bf16"
    dimension: int = 768
    precision: str = "tf32"
    rows: int = 256
    columns: int = 512
    padding: int = 0
    guide: str = ""
    ids: int = 4

    def __str__(self) -> str:
        precision = f" {self.precision}" if "fp32" in (self.dtype, self.guide) else ""
        guide = f"+{self.guide}" if self.guide else ""
        sizes = f"{self.rows}x{self.columns}+{self.padding}x{self.dimension}"
        ids = "" if self.ids == 4 else f" {self.ids} per query"
        return f"sm_{self.capability} {self.masks} {self.launch} {self.dtype}{guide}{precision} {sizes}{ids}"


def all_cases() -> list[Case]:
    """Every kind of the table at each usual size and type, every rule alone, an odd size, mixed types."""
    found = usual_cases()
    for capability in ARCHITECTURES:
        found += [
            Case(capability, masks, dtype=dtype, dimension=dimension)
            for masks in KINDS
            for dtype in ("bf16", "fp16")
            for dimension in DIMENSIONS
        ]
        found += [Case(capability, masks) for masks in FLAGS if masks not in KINDS]
        found += [Case(capability, masks, dimension=1000) for masks in KINDS if masks != "ids"]
        found += [
            Case(capability, masks, dtype="fp32", precision=precision)
            for masks in ("plain", "nested")
            for precision in ("tf32", "ieee")
        ]
        found += [Case(capability, "guide", guide="fp32")]
        found += [Case(capability, masks, launch) for masks in KINDS for launch in ("sums", "largest")]
        found += [
            Case(capability, masks, dtype="fp16", dimension=384) for masks in FLAGS if masks not in KINDS
        ]
        found += [Case(capability, masks, ids=ids) for masks, ids in (("ids", 1), ("ids", 16), ("nested", 1))]
    return list(dict.fromkeys(found))


def usual_cases() -> list[Case]:
    """Every kind on every architecture; dtypes and dimensions are spread over the kinds."""
    found = []
    for capability in ARCHITECTURES:
        found += [Case(capability, masks) for masks in KINDS]
        found += [Case(capability, "plain", launch) for launch in ("sums", "largest")]
        found += [Case(capability, "nested", launch) for launch in ("largest", "mix")]
        found += [Case(capability, "plain", dtype="fp16", dimension=384)]
        found += [Case(capability, "masked", dtype="fp16", dimension=1024)]
        found += [Case(capability, "guided", dtype="fp32")]
        found += [Case(capability, "masked", dtype="fp32", dimension=384, precision="ieee")]
        found += [Case(capability, "plain", dtype="fp32", dimension=384, precision="tf32x3")]
    found += [Case(80, "nested", launch, rows=1, columns=1) for launch in ("fill", "largest", "mix")]
    for capability in (80, 90, 100):  # where the tile is the largest, or has spilled
        found += [Case(capability, "plain", dtype="fp32")]
        found += [Case(capability, "nested", dtype="fp32", precision="ieee")]
    found += [Case(capability, "guide", guide="fp32") for capability in (86, 120)]  # the least shared memory
    found += [Case(90, "guided", dimension=100), Case(80, "plain", dimension=100)]
    for masks in ("plain", "guided"):
        found += [Case(90, masks, rows=1000, columns=1001, padding=padding) for padding in (0, 7)]
    return found


def few_cases() -> list[Case]:
    """Enough to see that another version of Triton makes usable code."""
    return [
        Case(capability, masks)
        for capability in (80, 90, 100)
        for masks in ("plain", "ids", "guided", "nested")
    ]


def make_term(case: Case) -> Term:
    """Operands of the sizes' divisibility that training has; their values do not matter."""
    rows, columns = case.rows, case.columns
    left = torch.zeros(rows, case.dimension, dtype=DTYPES[case.dtype])
    right = left.new_zeros(columns, case.dimension)
    flags, several = FLAGS[case.masks], "prefixes" in FLAGS[case.masks]
    prefixes = tuple(prefix for prefix in (128, 256, 512) if several and prefix < case.dimension)
    prefixes = *prefixes, case.dimension
    own = torch.zeros(rows, 1, dtype=torch.int64)
    one, other = Rows(left, own), Columns(right)
    if "ids" in flags:
        one = replace(one, ids=own.new_zeros(rows, case.ids))
        other = replace(other, ids=own.new_zeros(columns, min(2, case.ids)))
    if "groups" in flags:
        one, other = replace(one, groups=own[:, 0]), replace(other, groups=own.new_zeros(columns))
    if "owners" in flags:
        one, other = replace(one, owner=own[:, 0]), replace(other, owners=own.new_zeros(columns))
    if "threshold" in flags:
        one = replace(one, threshold=torch.zeros(len(prefixes), rows))
    if "guide" in flags:
        kind = DTYPES[case.guide or case.dtype]
        one = replace(one, guide=left[:, :384].to(kind), guide_threshold=torch.zeros(rows))
        other = replace(other, guide=right[:, :384].to(kind))
    if several or "norms" in flags:
        one = replace(one, inverse_norms=torch.zeros(len(prefixes), rows))
        other = replace(other, inverse_norms=torch.zeros(len(prefixes), columns))
    return Term(one, other, torch.ones(()), prefixes)


class Recorder:
    """Stands in for a kernel and takes down what it is launched with."""

    def __init__(self, kernel: triton.JITFunction) -> None:
        self.kernel, self.launches = kernel, []

    def __getitem__(self, grid: object):
        return lambda *arguments, **named: self.launches.append(
            {**dict(zip(self.kernel.arg_names, arguments, strict=False)), **named}
        )


def measure(case: Case) -> dict[str, int]:
    """Compile what the launcher would launch, and count."""
    recorders = {name: Recorder(getattr(strip_triton, name)) for name in ("strip", "mix")}
    originals = {name: recorder.kernel for name, recorder in recorders.items()}
    configure = strip_triton._config
    try:
        for name, recorder in recorders.items():
            setattr(strip_triton, name, recorder)
        strip_triton._config = lambda columns, *wanted: strip_config(
            case.capability, columns.shape[1], *wanted
        )
        strips = strip_triton.TritonStrips(make_term(case), case.precision)
        preferred = torch.zeros(len(strips.term.prefixes), case.rows)
        entries = torch.zeros(*preferred.shape, case.columns + case.padding, dtype=strips.dtype)
        entries = entries[:, :, : case.columns]
        strips.fill(0, case.rows, preferred, None if case.launch == "sums" else entries)
        if case.launch == "mix":
            strips.mix(0, case.rows, entries, preferred, preferred)
    finally:
        strip_triton._config = configure
        for name, kernel in originals.items():
            setattr(strip_triton, name, kernel)
    recorder = recorders["mix" if case.launch == "mix" else "strip"]
    return asdict(_compile(recorder.kernel, recorder.launches[0 if case.launch == "largest" else -1], case))


def _compile(kernel: triton.JITFunction, launch: dict[str, object], case: Case):
    """As the launch would specialise it: aligned pointers, integers divisible by 16, and those that are 1."""
    signature, constants, aligned = {}, {}, []
    for name in kernel.arg_names:
        value = launch[name]
        if isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            aligned += [name] * (value.data_ptr() % 16 == 0)
        elif name.isupper() or value is None or value == 1:
            constants[name] = value
        else:
            signature[name] = "i32" if value < 1 << 31 else "i64"
            aligned += [name] * (value % 16 == 0)
    return compile_kernel(
        kernel, signature, constants, case.capability, divisible_by_16=aligned,
        num_warps=launch["num_warps"], num_stages=launch.get("num_stages", 3),
    )  # fmt: skip


if __name__ == "__main__":
    sets = {"usual": usual_cases(), "few": few_cases(), "all": all_cases()}
    print_resources(__doc__, measure, sets, GOLDEN)
