"""Faults around a run told in one line, and checkpoints of another configuration."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed import DistError

from lit_retrofit.errors import UserError
from lit_retrofit.model.device import is_out_of_memory

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RESUME = "then go on with --ckpt_path from the run's checkpoints/last.ckpt"


@contextmanager
def faults_in_one_line() -> Iterator[None]:
    """Turns known faults into a `UserError`; leaves everything else as it is.

    Raises:
        UserError: a data worker or another rank has died, disk or memory are full, or Lightning refuses
            the options.
        KeyboardInterrupt: where Lightning made an exit of it.
    """
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise ended.__context__ from None
        raise
    except UserError as error:  # one of a data worker's brings that process's traceback along
        raise UserError(str(error).rsplit("UserError: ", 1)[-1].strip()) from error
    except (MisconfigurationException, OSError, RuntimeError, ValueError, MemoryError) as error:
        told = _told(error)
        if told is None:
            raise
        raise UserError(told) from error


def _told(error: Exception) -> str | None:
    text = " ".join(str(error).split())
    if isinstance(error, MisconfigurationException):
        return text
    if text.startswith("The `ModelParallelStrategy` does not support `Fabric(..., precision"):
        return "sharded training does not go with this trainer.precision; set bf16-mixed or 32-true"
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"{error.filename or 'a file'}: cannot be written ({error.strerror}); free space, {_RESUME}"
    if is_out_of_memory(error):
        return (
            f"memory ran out ({text[:150]}); lower model.graph_memory, data.options.token_budget or "
            "data.sampling.batch_size"
        )
    if text.startswith("DataLoader worker"):
        return f"a data worker died ({text}); most often the machine's memory ran out: free some, {_RESUME}"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return f"torch.compile failed ({text[:300]}); set model.encoder.compile to false"
    if isinstance(error, DistError) or "/gloo/" in text or "NCCL" in text:
        return (
            f"another process of the run has ended or does not answer ({text[:150]}); see its own message, "
            f"{_RESUME}"
        )
    return None


def check_same_encoder(
    field: str, trained: Mapping[str, Any] | None, configured: Mapping[str, Any] | None
) -> None:
    """Refuses to go on with an encoder that embeds otherwise than the one that was trained.

    The model's name is not compared: it may have moved. Nor are the lengths, and what only training uses.

    Args:
        field: of the configuration: model.encoder or model.document_encoder.
        trained: its options in the checkpoint; None where there was no such encoder.
        configured: those of the configuration, as the encoder has them.

    Raises:
        UserError: the first option that differs.
    """
    if trained is None or configured is None:
        _compare(field, trained and trained["model"], configured and configured["model"])
        return
    for name in ("pooling", "query_prompt", "document_prompt"):
        _compare(f"{field}.{name}", trained[name], configured[name])
    before, now = trained["lora"] or {}, configured["lora"] or {}
    for name in sorted((before.keys() & now.keys()) - {"dropout"}):
        _compare(f"{field}.lora.{name}", before[name], now[name])


def _compare(name: str, trained: object, configured: object) -> None:
    if trained != configured:
        raise UserError(
            f"the checkpoint was trained with {name} {trained!r} and the configuration has "
            f"{configured!r}; give the config.yaml of its run with --config"
        )
