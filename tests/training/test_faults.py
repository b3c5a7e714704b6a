"""Faults around a run: one line, what to do, and no traceback."""

from __future__ import annotations

import errno

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed import DistBackendError

from lit_retrofit.errors import UserError
from lit_retrofit.training.faults import check_same_encoder, faults_in_one_line

WORKERS_ERROR = """Caught UserError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "worker.py", line 3, in _worker_loop
lit_retrofit.errors.UserError: train.jsonl:3: field 'query' is empty; fill it
"""


@pytest.mark.parametrize(("error", "told"), [
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "memory ran out"),
    (RuntimeError("[/pytorch/third_party/gloo/pair.cc:553] Connection closed by peer"), "another process"),
    (DistBackendError("NCCL communicator was aborted"), "another process"),
    (OSError(errno.ENOSPC, "No space left on device", "metrics.csv"), "metrics.csv: cannot be written"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "lower model.graph_memory"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n 2 GiB"), "memory ran out"),
    (MisconfigurationException("You restored\n a checkpoint"), "^You restored a checkpoint$"),
    (UserError(WORKERS_ERROR), "^train.jsonl:3: field 'query' is empty; fill it$"),
])  # fmt: skip
def test_known_faults(error: Exception, told: str) -> None:
    with pytest.raises(UserError, match=told) as raised, faults_in_one_line():
        raise error
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), OSError(errno.ENOENT, "none"), KeyError("x")]
)
def test_what_is_not_known_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, faults_in_one_line():
        raise error
    assert raised.value is error


def test_an_exit_that_was_a_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), faults_in_one_line():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904 (as Lightning does)
    with pytest.raises(SystemExit), faults_in_one_line():
        raise SystemExit(0)


def test_encoders_that_embed_alike() -> None:
    lora = {"r": 4, "alpha": 32, "dropout": 0.1}
    options = {"model": "a", "pooling": "mean", "query_prompt": "", "document_prompt": "", "lora": lora}
    moved = {**options, "model": "/moved/a", "lora": {**lora, "dropout": 0.0}}
    check_same_encoder("model.encoder", options, moved)
    check_same_encoder("model.document_encoder", None, None)
    with pytest.raises(UserError, match=r"model\.document_encoder None and the configuration has 'a'"):
        check_same_encoder("model.document_encoder", None, options)
    with pytest.raises(UserError, match=r"lora\.alpha 32 and the configuration has 16"):
        check_same_encoder("model.encoder", options, {**options, "lora": {**lora, "alpha": 16}})
    with pytest.raises(UserError, match="document_prompt ''"):
        check_same_encoder("model.encoder", options, {**options, "document_prompt": "passage: "})
