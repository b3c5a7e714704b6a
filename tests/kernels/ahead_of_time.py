"""Compile a Triton kernel for a GPU that is not there, and read from the machine code what it needs.

Triton must not run as an interpreter in the process (``TRITON_INTERPRET`` unset): then there is no compiler.
Works with Triton 3.6 to 3.9.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

VERSION = ".".join(triton.__version__.split(".")[:2])
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SPILL = re.compile(r"\b(?:STL|LDL)\b")
TENSOR_CORE = re.compile(r"\b(?:HMMA|HGMMA|IMMA|QGMMA|UTC\w*MMA)\b")
TRAP = re.compile(r"\bBPT\.TRAP\b")
GUARD = re.compile(r"^\S*tcgen05_guardrail_trap\w*:", re.MULTILINE)
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/")


@dataclass(frozen=True)
class Compiled:
    """What a kernel needs of a multiprocessor.

    Attributes:
        registers: per thread.
        spills: instructions that store to or load from a thread's local memory (STL, LDL).
        stack: bytes of local memory per thread.
        shared: bytes of shared memory per block.
        instructions: machine instructions in all.
        tensor_core: machine instructions that use the tensor cores.
        traps: instructions that stop the kernel; the compiler puts them where it gave up. Those of the
            assembler's guards around the allocation of tensor memory (sm_100: 2 or 3 functions of one trap
            each) are not counted: every kernel with tensor memory has them.
    """

    registers: int
    spills: int
    stack: int
    shared: int
    instructions: int
    tensor_core: int
    traps: int


def compile_kernel(
    kernel: triton.JITFunction,
    signature: dict[str, str],
    constexprs: dict[str, object],
    capability: int,
    *,
    num_warps: int,
    num_stages: int,
    divisible_by_16: Sequence[str],
) -> Compiled:
    """Compile as a launch would, for any compute capability, and count in the machine code.

    Args:
        kernel: function under ``@triton.jit``.
        signature: type of each argument at run time, as "*fp16", "i32" or "tensordesc<bf16[128,64]>".
        constexprs: value of each other argument; an argument that a launch gives None belongs here too.
        capability: 80 for sm_80, 120 for sm_120.
        num_warps: warps per block.
        num_stages: stages of the software pipeline.
        divisible_by_16: arguments that a launch specialises: aligned pointers, integers divisible by 16.
    """
    types = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    missing = [name for name in types if name not in signature and name not in constexprs]
    if missing or len(types) != len(signature) + len(constexprs):
        raise ValueError(f"every argument needs a type or a value, and only one; missing: {missing}")
    attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in divisible_by_16}
    compiled = triton.compile(
        ASTSource(kernel, types, constexprs, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _output("cuobjdump", "--dump-resource-usage", file.name)
        code = _output("nvdisasm", "-c", file.name)
    return Compiled(
        registers=_figure("REG", usage),
        spills=len(SPILL.findall(code)),
        stack=_figure("STACK", usage),
        shared=compiled.metadata.shared,
        instructions=sum(1 for line in code.splitlines() if INSTRUCTION.match(line)),
        tensor_core=len(TENSOR_CORE.findall(code)),
        traps=len(TRAP.findall(code)) - len(GUARD.findall(code)),
    )


def print_resources(
    title: str,
    measure: Callable[[object], dict[str, int]],
    sets: dict[str, Sequence[object]],
    golden: Path,
) -> None:
    """The command line of a file of cases: measure one set of them, print the figures, or write them too."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--cases", choices=list(sets), default="usual")
    parser.add_argument("--names", action="store_true", help="only name the cases")
    parser.add_argument("--write", action="store_true", help="put the figures into the golden file")
    arguments = parser.parse_args()
    cases = sets[arguments.cases]
    if arguments.names:
        json.dump([str(case) for case in cases], sys.stdout)
        return
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = dict(zip(map(str, cases), pool.map(measure, cases), strict=True))
    if arguments.write:
        figures = json.loads(golden.read_text()) if golden.exists() else {}
        figures[VERSION] = figures.get(VERSION, {}) | found
        golden.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    json.dump({"version": VERSION, "cases": found}, sys.stdout)


def _output(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], check=True, capture_output=True, text=True).stdout


def _figure(name: str, usage: str) -> int:
    found = re.search(rf"\b{name}:(\d+)", usage)
    if found is None:
        raise ValueError(f"cuobjdump reports no {name}: {usage!r}")
    return int(found.group(1))
