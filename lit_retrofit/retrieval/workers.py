"""Embedding in several processes: each takes what is left, so they need to know nothing of each other."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import Tensor

from lit_retrofit.errors import UserError
from lit_retrofit.model import packing
from lit_retrofit.model.device import Precision
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.cached import CHUNK, embed_cached

log = logging.getLogger(__name__)


def embed_in_processes(
    encoder: Encoders,
    texts: Sequence[str],
    role: Role,
    *,
    cache: Path,
    processes: int = 1,
    token_budget: int | None = None,
    precision: Precision = "fp32",
    description: str | None = None,
) -> Tensor:
    """Embeds texts as `embed_cached` does, with further processes beside this one.

    On GPUs each process takes one of its own; on the CPU they part the cores. Fewer are started where there
    are not enough texts. If one dies, the others do its work.

    Args:
        encoder: on the device to use, which this process keeps.
        texts: without prompts.
        role: query or document.
        cache: folder of embeddings, of any models.
        processes: at work, this one included.
        token_budget: padded tokens of a micro-batch; by default as many as suit the device.
        precision: see `embed_texts`.
        description: shown beside a progress bar; no bar without it.

    Returns:
        (texts, dimension) float32, memory-mapped; not to be written to.

    Raises:
        UserError: there are fewer GPUs than processes, or as `embed_cached`.
    """
    encoder = encoder.of(role)  # the other one need not be sent
    check_processes(processes, encoder.device)
    further = min(processes, -(-len(texts) // CHUNK)) - 1
    options = {"cache": cache, "token_budget": token_budget, "precision": precision}
    if further < 1:
        return embed_cached(encoder, texts, role, description=description, **options)  # type: ignore[arg-type]
    home, threads = encoder.device, torch.get_num_threads()
    share = max(1, threads // (further + 1))
    started = None
    try:
        # Copied from the CPU: tensors on a GPU would be shared, and each process moves them to its own.
        arguments = (encoder.cpu(), list(texts), role, home.type, share, options)
        started = mp.spawn(_work, arguments, nprocs=further, join=False)
        encoder.to(home)
        torch.set_num_threads(share)
        return embed_cached(encoder, texts, role, description=description, **options)  # type: ignore[arg-type]
    finally:
        encoder.to(home)
        torch.set_num_threads(threads)
        for process in started.processes if started else ():
            if process.exitcode:
                log.warning("a process that helped to embed ended with status %d", process.exitcode)
            process.terminate()  # all is embedded, or this process failed: what they still do is in vain
            process.join()


def check_processes(processes: int, device: torch.device) -> None:
    """Refuses a number of processes that the machine cannot give a device each.

    Raises:
        UserError: it is below 1, or above the number of GPUs where GPUs are used.
    """
    most = torch.cuda.device_count() if device.type == "cuda" else os.cpu_count() or 1
    if not 1 <= processes <= most:
        what = "GPUs" if device.type == "cuda" else "CPU cores"
        raise UserError(f"processes is {processes}; give 1 to {most}, the number of {what} here")


def _work(
    number: int,
    encoder: Encoders,
    texts: Sequence[str],
    role: Role,
    device_type: str,
    threads: int,
    options: dict,
) -> None:
    packing.register()  # the encoder came from a process in which it was
    torch.set_num_threads(threads)
    device = torch.device(device_type, number + 1) if device_type == "cuda" else torch.device(device_type)
    embed_cached(encoder.to(device), texts, role, **options)
