"""The search's kernels in machine code for GPUs that are not there: registers, spills, shared memory.

``python tests/kernels/test_neighbours_ahead_of_time.py --write`` renews the golden file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from retrofit_kernels._search.configs import UNKNOWN, lane_bin_config
from retrofit_kernels.configs import SHARED_MEMORY

GOLDEN = Path(__file__).parent / "golden" / "neighbours.json"
CAPABILITIES = (80, 86, 89, 90, 100, 120)
TYPES = {"bf16": 2, "fp16": 2, "fp32": 4}
MODES = {"exact": True, "approximate": False}
DIMENSIONS = (384, 768, 1024)


def config(capability: int, itemsize: int, dimension: int = 768):
    return lane_bin_config(divmod(capability, 10), itemsize, dimension)


def arguments(signature, constexprs, optional):
    """The types of all arguments, those that a launch leaves out as None, and those that are aligned."""
    constexprs = constexprs | {name: None for name in optional if name not in signature}
    aligned = [name for name, kind in signature.items() if kind.startswith("*")] + ["dimension", "stride"]
    return {"signature": signature, "constexprs": constexprs, "divisible_by_16": aligned}


def lane_bins_arguments(kind: str, certified: bool, tile) -> dict:
    """As launched with ids and a ceiling, the dearest case."""
    pointers = dict.fromkeys(["floor", "best", "query_ids", "id_counts", "document_ids"], "*i32")
    numbers = dict.fromkeys(["rows", "columns", "dimension", "stride", "ids", "tiles", "splits"], "i32")
    signature = {"queries": f"*{kind}", "documents": f"*{kind}", "ceiling": "*fp32"} | pointers | numbers
    if certified:
        signature |= {"second": "*i32", "lost": "*i32"}
    constexprs = {"IDS": True, "CEILING": True, "CERTIFIED": certified, "EVEN": True}
    constexprs |= {"BLOCK_M": tile.rows, "BLOCK_N": tile.columns, "BLOCK_D": tile.depth}
    return arguments(signature, constexprs, ["second", "lost"])


def rescore_arguments(kind: str) -> dict:
    from retrofit_kernels._search.launch import RESCORED, RESCORED_DEPTH

    numbers = dict.fromkeys(["dimension", "stride", "count"], "i32")
    signature = {"queries": f"*{kind}", "documents": f"*{kind}", "candidates": "*i32", "scores": "*fp32"}
    return arguments(signature | numbers, {"EVEN": True, "BLOCK_C": RESCORED, "BLOCK_D": RESCORED_DEPTH}, [])


def compile_all() -> dict[str, dict[str, int]]:
    """What every kernel needs; runs where Triton compiles."""
    sys.path.insert(0, str(Path(__file__).parent))
    from ahead_of_time import compile_kernel
    from retrofit_kernels._search.bins import lane_bins, rescore

    found = {}
    for capability in CAPABILITIES:
        for kind, itemsize in TYPES.items():
            tile = config(capability, itemsize)
            for mode, certified in MODES.items():
                found[f"lane_bins {mode} {kind} sm_{capability}"] = compile_kernel(
                    lane_bins,
                    **lane_bins_arguments(kind, certified, tile),
                    capability=capability,
                    num_warps=tile.warps,
                    num_stages=tile.stages,
                )
        found[f"rescore bf16 sm_{capability}"] = compile_kernel(
            rescore, **rescore_arguments("bf16"), capability=capability, num_warps=4, num_stages=3
        )
    return {name: asdict(compiled) for name, compiled in found.items()}


def compiled_elsewhere() -> dict[str, dict[str, int]]:
    """In a process of its own: this one may have imported Triton as an interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.mark.slow
def test_the_machine_code():
    """No spill, no trap, tensor cores, shared memory that exists; and what is in the golden file, about.

    Another version of the compiler may need a few registers more or less: within 15 % it passes.
    """
    triton = pytest.importorskip("triton")
    if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm").exists():
        pytest.skip("this Triton has no disassembler")
    golden, found = json.loads(GOLDEN.read_text()), compiled_elsewhere()
    assert found.keys() == golden.keys()
    for name, needs in found.items():
        capability = int(name.rsplit("_", 1)[1])
        assert (needs["spills"], needs["stack"], needs["traps"]) == (0, 0, 0), (name, needs)
        assert needs["registers"] <= min(255, 1.15 * golden[name]["registers"]), (name, needs)
        assert needs["shared"] <= SHARED_MEMORY[capability], (name, needs)
        assert needs["shared"] <= 1.15 * golden[name]["shared"], (name, needs)
        assert needs["instructions"] <= 1.25 * golden[name]["instructions"], (name, needs)
        assert (needs["tensor_core"] > 0) == name.startswith("lane_bins"), (name, needs)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_the_usual_dimensions_share_one_configuration(capability, itemsize):
    """What is compiled for one is launched for all: the dimension is a runtime argument."""
    first, *others = (config(capability, itemsize, dimension) for dimension in DIMENSIONS)
    assert all(other == first for other in others)
    assert all(dimension % first.depth == 0 for dimension in DIMENSIONS)


@pytest.mark.parametrize("capability", [*CAPABILITIES, 75, 103, 121, 130])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_every_tile_fits_into_shared_memory(capability, itemsize):
    for dimension in (1, 31, 64, 100, 384, 4096):
        tile = config(capability, itemsize, dimension)
        assert 0 < tile.shared_bytes(itemsize) <= SHARED_MEMORY.get(capability, 48 << 10)
        assert tile.stages >= 1


def test_an_unknown_gpu_gets_a_small_tile_and_one_stage():
    assert config(130, 2) == lane_bin_config(None, 4, 768) == UNKNOWN
    assert (UNKNOWN.rows * UNKNOWN.columns, UNKNOWN.stages) == (1024, 1)


if __name__ == "__main__":
    results = json.dumps(compile_all(), indent=1)
    if "--write" in sys.argv:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(results + "\n")
    else:
        print(results)
