"""The documents of a pool, piece by piece on the queries' device, from wherever the corpus lies."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from retrofit_kernels._search.pool import Chunk, Pool

STAGED_BYTES = 256 << 20
"""Most that a piece of a corpus on another device may need; two of them lie on either device at a time."""


def chunks(pool: Pool, chunk_bytes: int) -> Iterator[Chunk]:
    """Yield the pool's documents in order.

    A corpus on the queries' device is one chunk, of which nothing is copied, or, where the pool takes only
    some of its documents, as many copies as `chunk_bytes` make necessary. From elsewhere the pieces are
    copied through page-locked memory while the device works on the piece before; a memory map is read
    meanwhile.

    A chunk is valid until the next one is asked for.
    """
    here = pool.queries.device
    if pool.corpus.device == here:
        whole = pool.columns is None
        for start, end in _bounds(pool, pool.documents if whole else _documents_in(pool, chunk_bytes)):
            rows = slice(start, end) if pool.columns is None else pool.columns[start:end]
            yield _chunk(pool, pool.corpus[rows], start)
        return
    width = min(pool.documents, _documents_in(pool, min(chunk_bytes, STAGED_BYTES)))
    for start, vectors in staged(pool.corpus, pool.columns, _bounds(pool, width), here):
        yield _chunk(pool, vectors, start)


def staged(
    corpus: Tensor, columns: Tensor | None, bounds: list[tuple[int, int]], device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Copy pieces of the corpus to a device through two pairs of buffers, one piece ahead of the consumer.

    Args:
        corpus: (N, D) in memory that the CPU reads.
        columns: (n,) rows of the corpus to copy, or None for all.
        bounds: places `start` … `end` - 1 of each piece among the columns.
        device: where to. With the CPU (in tests) the same buffers are filled without streams.

    Yields:
        `start` and (end - start, D) vectors, which the next but one piece overwrites.
    """
    rows = None if columns is None else columns.cpu()
    ring = [_Buffer(corpus, max((end - start for start, end in bounds), default=0), device) for _ in range(2)]

    def read(number: int) -> Future[Tensor]:
        start, end = bounds[number]
        return reader.submit(
            ring[number % 2].fill, corpus, slice(start, end) if rows is None else rows[start:end]
        )

    # A thread, for reading a memory map and filling page-locked memory occupy the CPU, not the device.
    with ThreadPoolExecutor(1) as reader:
        pending = [read(number) for number in range(min(1, len(bounds)))]
        for number, (start, _) in enumerate(bounds):
            vectors = pending.pop().result()
            if number + 1 < len(bounds):
                pending.append(read(number + 1))
            ring[number % 2].hand_over()
            yield start, vectors
            ring[number % 2].take_back()


class _Buffer:
    """A piece of page-locked memory and one of the device, and the stream that copies between them."""

    def __init__(self, corpus: Tensor, rows: int, device: torch.device) -> None:
        shape = (rows, corpus.shape[1])
        self.on_gpu = device.type == "cuda"
        self.device = device
        self.host = torch.empty(shape, dtype=corpus.dtype, pin_memory=self.on_gpu)
        self.resident = torch.empty(shape, dtype=corpus.dtype, device=device)
        if self.on_gpu:
            self.stream = torch.cuda.Stream(device)
            # Where the consumer stops early, the memory is given away only when a copy into it has arrived.
            self.resident.record_stream(self.stream)
            self.copied, self.consumed = torch.cuda.Event(), torch.cuda.Event()
            self.consumed.record(torch.cuda.current_stream(device))

    def fill(self, corpus: Tensor, place: slice | Tensor) -> Tensor:
        """Read a piece of the corpus and start its copy; runs in the reader's thread."""
        if self.on_gpu:
            self.copied.synchronize()  # the copy before may still be reading the page-locked memory
        piece = corpus[place]
        host, resident = self.host[: len(piece)], self.resident[: len(piece)]
        host.copy_(piece)
        if not self.on_gpu:
            return resident.copy_(host)
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            self.stream.wait_event(self.consumed)
            resident.copy_(host, non_blocking=True)
            self.copied.record(self.stream)
        return resident

    def hand_over(self) -> None:
        """Let the consumer's stream wait for the copy."""
        if self.on_gpu:
            torch.cuda.current_stream(self.device).wait_event(self.copied)

    def take_back(self) -> None:
        """Let the next copy wait for what the consumer has launched."""
        if self.on_gpu:
            self.consumed.record(torch.cuda.current_stream(self.device))


def _chunk(pool: Pool, vectors: Tensor, start: int) -> Chunk:
    inside = slice(start, start + len(vectors))
    columns = None if pool.columns is None else pool.columns[inside]
    ids = pool.corpus_ids
    if ids is not None:
        ids = ids[inside] if columns is None else ids[columns]
    return Chunk(vectors, columns, start, ids)


def _bounds(pool: Pool, width: int) -> list[tuple[int, int]]:
    return [(start, min(start + width, pool.documents)) for start in range(0, pool.documents, max(1, width))]


def _documents_in(pool: Pool, bytes_: int) -> int:
    return max(1, bytes_ // (pool.corpus.shape[1] * pool.corpus.element_size()))
