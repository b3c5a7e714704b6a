"""What the C library's heap still holds of freed tensors, given back to the system."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

SPARE = 250_000_000
"""Bytes of freed memory that the heap may hold beyond what is needed again soon, if few graphs are kept."""
SPARE_SHARE = 0.25
"""Of the kept graphs, that it may hold beyond what is needed again: between 12 GB of them are 2.7 GB of
holes, which the next micro-batches take and leave in turn. Given back sooner, they are taken from the system
again one after the other: 4 to 6 million pages a step of 4096 pairs instead of 0.6 million."""
_GROWTH = SPARE // 4
"""Bytes that the process grows by before its heap is looked at, which takes 10 to 30 ms: 3 % of a step, if
it is done for every micro-batch."""
_PAGES = Path("/proc/self/statm")


class _HeapInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc's malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


class FreedMemory:
    """The freed memory of this process that the system cannot use.

    glibc keeps freed blocks below 32 MB for later ones. Micro-batches differ in length, so that a later
    tensor often fits into none of the holes, and the heap grows with the number of micro-batches: from 3.5
    GB for 512 pairs to 4.7 GB for 2048, on two layers. Giving back the holes' pages once they are many
    makes that nearly the same for both. Pages of their own for all large tensors
    (``M_MMAP_THRESHOLD``) do the same in 1.3 times the time.

    With another C library, which has no such question, nothing is done.
    """

    def __init__(self) -> None:
        self._not_freed: int | None = None
        self._looked_at = 0
        self._libc: Any = None
        libc: Any = ctypes.CDLL(None) if _PAGES.exists() else None
        if hasattr(libc, "mallinfo2") and hasattr(libc, "malloc_trim"):
            libc.mallinfo2.restype = _HeapInfo
            libc.malloc_trim.argtypes = [ctypes.c_size_t]
            self._libc = libc

    def give_back(self, soon_needed: int = 0, graphs: int = 0) -> None:
        """Gives back the pages of all freed blocks, if those that are not needed again are many.

        To take a gigabyte again costs a training step 0.4 to 1.5 seconds.

        Args:
            soon_needed: bytes of them that are needed again soon.
            graphs: bytes of graphs that a step keeps at most.
        """
        if self._libc is None:
            return
        may_stay = soon_needed + max(SPARE, int(SPARE_SHARE * graphs))
        # What the heap does not know of (libraries, Python's own arenas) is whatever stays after giving back.
        if self._not_freed is None or (
            self._has_grown() and self._beyond_tensors() - self._not_freed > may_stay
        ):
            self._libc.malloc_trim(0)
            self._not_freed = self._beyond_tensors()
            self._looked_at = self._resident()

    def _has_grown(self) -> bool:
        """Whether the process holds more than when its heap was last looked at, which is then now."""
        resident = self._resident()
        if resident < self._looked_at + _GROWTH:
            return False
        self._looked_at = resident
        return True

    def _resident(self) -> int:
        """Bytes of the process's own memory."""
        resident, shared = (int(pages) for pages in _PAGES.read_text().split()[1:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

    def _beyond_tensors(self) -> int:
        """Bytes of the process's own memory that no block of the heap is in use for."""
        heap = self._libc.mallinfo2()
        return self._resident() - heap.uordblks - heap.hblkhd
