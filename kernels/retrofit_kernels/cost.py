"""What loss and search must cost on a named card: floating-point operations, bytes, occupancy, seconds.

A model, not a measurement. It says what limits a shape and how far a measured time is from that limit. It
knows no launch overhead, no tail of a last wave of blocks and no clock that drops under load.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from retrofit_kernels.configs import LEAST_CAPABILITY, strip_config
from retrofit_kernels.occupancy import MAX_REGISTERS, Occupancy, occupancy

Dtype = Literal["bfloat16", "float16", "float32"]
Limit = Literal["arithmetic", "memory"]

ACHIEVABLE_ARITHMETIC = 0.8
"""Assumption: the share of the peak that large matrix products reach. An H100 runs them at about 790 of its
989 TFLOP/s, because at full rate it would exceed its power limit."""
ACHIEVABLE_BANDWIDTH = 0.9
"""Assumption: the share of the data sheet's bandwidth that long sequential reads and writes reach."""
DEFAULT_STRIP_BYTES = 256 << 20
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Card:
    """One GPU as its maker describes it. All rates are dense (without sparsity), accumulated in fp32.

    Attributes:
        name: the maker's name.
        capability: compute capability.
        processors: streaming multiprocessors.
        bfloat16: tensor-core rate in TFLOP/s, None where the card has none.
        float16: tensor-core rate in TFLOP/s.
        tf32: tensor-core rate in TFLOP/s for fp32 inputs, None where the card has none.
        float32: rate in TFLOP/s without tensor cores.
        bandwidth: of the device memory, in GB/s.
        cache: L2, in MiB.
        memory: in GB.
        source: where the figures stand.
    """

    name: str
    capability: tuple[int, int]
    processors: int
    bfloat16: float | None
    float16: float
    tf32: float | None
    float32: float
    bandwidth: float
    cache: float
    memory: int
    source: str

    @property
    def multiplies_fp32_alone(self) -> bool:
        """Whether Triton has no tensor cores here, so that plain torch takes over, in fp32."""
        major, minor = self.capability
        return 10 * major + minor < LEAST_CAPABILITY

    def size(self, dtype: Dtype) -> int:
        """Bytes of a number in what is multiplied."""
        return 4 if dtype == "float32" or self.multiplies_fp32_alone else 2

    def rate(self, dtype: Dtype) -> float:
        """Peak TFLOP/s of a product of `dtype` matrices; fp32 is multiplied as TF32.

        Before compute capability 8.0 loss and search multiply in plain fp32, whatever the embeddings are.

        Raises:
            ValueError: the card's tensor cores do not know the dtype.
        """
        rates = {"bfloat16": self.bfloat16, "float16": self.float16, "float32": self.tf32}
        if dtype not in rates:
            raise ValueError(f"dtype must be one of {', '.join(rates)}, not {dtype!r}")
        if self.multiplies_fp32_alone:
            return self.float32
        rate = rates[dtype]
        if rate is None:
            raise ValueError(f"dtype {dtype} has no tensor cores on {self.name}")
        return rate


_GA102 = "NVIDIA Ampere GA102 GPU architecture whitepaper, appendix A"
_HGX = "NVIDIA HGX B200 data sheet, an eighth of it; processors and L2 as the driver reports them"
CARDS = {
    "rtx3090": Card("GeForce RTX 3090", (8, 6), 82, 71, 71, 35.6, 35.6, 936, 6, 24, _GA102),
    "rtx4080": Card(
        "GeForce RTX 4080", (8, 9), 76, 97.5, 97.5, 48.7, 48.7, 717, 64, 16,
        "NVIDIA Ada GPU architecture whitepaper",
    ),
    "rtx4090": Card(
        "GeForce RTX 4090", (8, 9), 128, 165.2, 165.2, 82.6, 82.6, 1008, 72, 24,
        "NVIDIA Ada GPU architecture whitepaper, appendix A",
    ),
    "rtx5090": Card(
        "GeForce RTX 5090", (12, 0), 170, 209.5, 209.5, 104.8, 104.8, 1792, 96, 32,
        "NVIDIA RTX Blackwell GPU architecture whitepaper, appendix A",
    ),
    "l4": Card(
        "L4", (8, 9), 58, 121, 121, 60, 30.3, 300, 48, 24,
        "NVIDIA L4 data sheet (its rates are with sparsity: halved); L2 from the Ada whitepaper",
    ),
    "t4": Card(
        "T4", (7, 5), 40, None, 65, None, 8.1, 320, 4, 16, "NVIDIA Turing GPU architecture whitepaper",
    ),
    "a10": Card(
        "A10", (8, 6), 72, 125, 125, 62.5, 31.2, 600, 6, 24, "NVIDIA A10 data sheet; L2 from " + _GA102,
    ),
    "a100": Card("A100 80GB SXM", (8, 0), 108, 312, 312, 156, 19.5, 2039, 40, 80, "NVIDIA A100 data sheet"),
    "h100": Card(
        "H100 SXM", (9, 0), 132, 989.4, 989.4, 494.7, 66.9, 3350, 50, 80,
        "NVIDIA H100 data sheet and Hopper whitepaper (rates with sparsity: halved)",
    ),
    "h200": Card(
        "H200 SXM", (9, 0), 132, 989.4, 989.4, 494.7, 66.9, 4800, 50, 141,
        "NVIDIA H200 data sheet (rates with sparsity: halved); L2 from the Hopper whitepaper",
    ),
    "b200": Card("B200", (10, 0), 148, 2250, 2250, 1125, 75.0, 8000, 126, 180, _HGX),
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What one call costs.

    Attributes:
        flop: floating-point operations of the matrix products (a multiply-add is two).
        bytes: read from and written to the device memory.
        arithmetic_seconds: the operations at the achievable rate.
        memory_seconds: the bytes at the achievable bandwidth.
        seconds: the larger of the two: they overlap.
        limited_by: "arithmetic" or "memory".
        strip_bytes: size of the strip (loss) or tile (search) of logits that is held.
        occupancy: of the kernel that fills the strip; None where plain torch does, and for a search.
    """

    flop: float
    bytes: float
    arithmetic_seconds: float
    memory_seconds: float
    seconds: float
    limited_by: Limit
    strip_bytes: int
    occupancy: Occupancy | None = None


@dataclass(frozen=True)
class Shares:
    """The shares of the data sheet's figures that are taken for achievable.

    Attributes:
        arithmetic: of the tensor-core rate, above 0 and up to 1.
        bandwidth: of the memory bandwidth, above 0 and up to 1.
    """

    arithmetic: float = ACHIEVABLE_ARITHMETIC
    bandwidth: float = ACHIEVABLE_BANDWIDTH


PEAK = Shares(1.0, 1.0)
"""The roofline: the data sheet's own figures."""


def loss_cost(
    rows: int,
    columns: int,
    dimension: int,
    dtype: Dtype,
    card: str | Card,
    *,
    gradients: bool = True,
    strip_budget: int = DEFAULT_STRIP_BYTES,
    registers: int = MAX_REGISTERS,
    shares: Shares = Shares(),
) -> Cost:
    """Cost of `info_nce`, on tensor cores where it uses them.

    With u = rows · columns · dimension, each of the three products takes 2u operations: 6u with gradients, 2u
    without. The exponentials pass through memory three times (written once, read by both gradient
    products), unless a whole strip stays in the L2 cache. Every strip reads the documents again, and adds to
    their gradient in fp32.

    Args:
        rows: queries, B.
        columns: documents of all processes, N (the gathered ones).
        dimension: D.
        dtype: of the embeddings; fp32 is multiplied as TF32 and its strip is kept in fp32.
        card: a key of `CARDS`, or a card.
        gradients: whether gradients are wanted.
        strip_budget: bytes of a strip; at least one row is held.
        registers: per thread of the strip's kernel, if the compiler has told; the most by default.
        shares: what is taken for achievable.

    Raises:
        ValueError: an unknown card, a dtype without tensor cores there, or a size below 1.
    """
    card = find_card(card)
    _check_sizes(rows=rows, columns=columns, dimension=dimension, strip_budget=strip_budget)
    rate = card.rate(dtype)
    size = card.size(dtype)
    products = rows * columns * dimension
    embeddings = (rows + columns) * dimension * size
    resident = _occupancy(card, dimension, size, registers)
    if not gradients:
        return replace(_cost(2 * products, embeddings, 0, rate, card, shares), occupancy=resident)
    height = min(rows, max(1, strip_budget // (columns * size)))
    strips = -(-rows // height)
    strip = height * columns * size
    traffic = 0 if strip <= card.cache * MEGABYTE else 3 * rows * columns * size
    queries = 2 * rows * dimension * size + rows * dimension * size  # read twice, gradient written once
    documents = strips * columns * dimension * (2 * size + 2 * 4)  # read twice; gradient read and written
    cost = _cost(6 * products, traffic + queries + documents, strip, rate, card, shares)
    return replace(cost, occupancy=resident)


def _occupancy(card: Card, dimension: int, itemsize: int, registers: int) -> Occupancy | None:
    """Blocks of a strip's kernel without masks that are on a multiprocessor at a time."""
    if card.multiplies_fp32_alone:
        return None
    major, minor = card.capability
    config = strip_config(10 * major + minor, dimension, itemsize, "plain")
    shared = config.shared_memory(10 * major + minor, itemsize)
    return occupancy(registers, shared, config.num_warps, card.capability)


def neighbours_cost(
    queries: int,
    corpus: int,
    dimension: int,
    dtype: Dtype,
    card: str | Card,
    *,
    k: int,
    store_scores: bool = False,
    query_tile: int = 65536,
    shares: Shares = Shares(),
) -> Cost:
    """Cost of a search for the k best of all inner products: 2·Q·N·D operations.

    Args:
        queries: Q.
        corpus: N.
        dimension: D.
        dtype: of the embeddings.
        card: a key of `CARDS`, or a card.
        k: documents per query; a score and an index are written for each.
        store_scores: whether the fp32 scores are written and read again (a product followed by a selection).
        query_tile: queries that are held at a time: the corpus is read once for each tile of them.
        shares: what is taken for achievable.

    Raises:
        ValueError: an unknown card, a dtype without tensor cores there, or a size below 1.
    """
    card = find_card(card)
    _check_sizes(queries=queries, corpus=corpus, dimension=dimension, k=k, query_tile=query_tile)
    size = card.size(dtype)
    held = min(queries, query_tile)
    moved = queries * dimension * size + -(-queries // query_tile) * corpus * dimension * size
    moved += queries * k * (4 + 8)
    if store_scores:
        moved += 2 * queries * corpus * 4
    strip = held * corpus * 4 if store_scores else 0
    return _cost(2 * queries * corpus * dimension, moved, strip, card.rate(dtype), card, shares)


def find_card(card: str | Card) -> Card:
    """The card of a name.

    Raises:
        ValueError: there is none.
    """
    if isinstance(card, Card):
        return card
    if card not in CARDS:
        raise ValueError(f"card must be one of {', '.join(CARDS)}, not {card!r}")
    return CARDS[card]


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")


def _cost(flop: float, moved: float, strip: int, rate: float, card: Card, shares: Shares) -> Cost:
    arithmetic = flop / (rate * shares.arithmetic * 1e12)
    memory = moved / (card.bandwidth * shares.bandwidth * 1e9)
    limit: Limit = "arithmetic" if arithmetic >= memory else "memory"
    return Cost(flop, moved, arithmetic, memory, max(arithmetic, memory), limit, strip)
