"""What is measured of the losses where nothing else is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.kernels.loss_goals import NAMED, NAMED_MEMORY
from benchmarks.kernels.loss_peers import BY_NAME
from benchmarks.kernels.shapes import Shape


@dataclass(frozen=True)
class Plan:
    """Sizes and repetitions.

    Attributes:
        shapes: timed with gradients.
        sizes: numbers of queries of the sweep.
        dimension: of the sweep.
        dtype: of the embeddings.
        memory_shapes: whose peak memory is measured; that of the sweep is, too.
        memory_peers: whose memory is measured.
        sweep_only: peers that are timed in the sweep alone, because they are slow or much like another one.
        rounds: counted rounds at least.
        seconds: that the rounds of a shape take at least.
        error_rows: queries of the comparison with fp64.
    """

    shapes: tuple[Shape, ...]
    sizes: tuple[int, ...]
    dimension: int
    dtype: str
    memory_shapes: tuple[Shape, ...]
    memory_peers: tuple[str, ...] = tuple(BY_NAME)
    sweep_only: tuple[str, ...] = ()
    rounds: int = 3
    seconds: float = 2.0
    error_rows: int = 1024


PREDICTED = (Shape(32768, 32768, 768), Shape(32768, 32768, 384))
PLANS = {
    "cpu": Plan(
        NAMED,
        (1024, 2048, 4096, 8192),
        384,
        "float32",
        (NAMED_MEMORY,),
        memory_peers=("ours", "eager", "chunked", "sentence_transformers", "liger"),
        # On a CPU cut-cross-entropy is torch.compile of the same lines.
        sweep_only=("sentence_transformers_default", "cut_cross_entropy"),
    ),
    "cuda": Plan(
        (*NAMED, *PREDICTED),
        tuple(1 << power for power in range(10, 21)),
        768,
        "bfloat16",
        (NAMED_MEMORY,),
    ),
    "quick": Plan(
        (Shape(256, 512, 32),),
        (128,),
        32,
        "float32",
        (Shape(256, 8192, 32),),
        memory_peers=("ours",),
        rounds=2,
        seconds=0.05,
        error_rows=64,
    ),
}
QUICK_PEERS = ("ours", "three_gemms", "eager", "chunked", "sentence_transformers")
