"""The choice of device and precision, and the memory that there is."""

import math

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model import device
from lit_retrofit.model.control_groups import left_in_groups
from lit_retrofit.model.device import (
    autocast_dtype,
    choose_device,
    is_out_of_memory,
    multiplies_bf16,
    tokens_at_a_time,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_only_where_it_is_native(monkeypatch, native):
    monkeypatch.setattr(device, "multiplies_bf16", lambda _: native)
    assert autocast_dtype("auto", CPU) is (torch.bfloat16 if native else None)


def test_a_named_precision_is_taken_as_it_is():
    assert autocast_dtype("fp32", CPU) is None
    assert autocast_dtype("bf16", CPU) is torch.bfloat16
    assert autocast_dtype("fp16", CPU) is torch.float16


@pytest.mark.parametrize(
    ("avx512", "amx", "native"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_cpus_are_asked_for_their_instructions(monkeypatch, avx512, amx, native):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert multiplies_bf16(CPU) is native


def test_micro_batches_suit_the_device():
    assert [tokens_at_a_time(None, torch.device(name)) for name in ("cpu", "cuda")] == [4096, 16384]
    assert tokens_at_a_time(7, CPU) == 7


def test_a_torch_that_cannot_be_asked_computes_in_fp32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert multiplies_bf16(CPU) is False


def test_devices():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "gpu"):
        with pytest.raises(UserError, match="use auto, cpu, cuda"):
            choose_device(name)


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_limits_of_nested_control_groups(tmp_path):
    groups, own = tmp_path / "groups", tmp_path / "own"
    own.write_text("0::/job/step\n")
    group(groups)
    assert left_in_groups(groups, own) == math.inf
    group(groups / "job", memory__max=1000, memory__current=400, memory__stat="anon 300\ninactive_file 50")
    group(groups / "job" / "step", memory__max="max", memory__current=300, memory__stat="inactive_file 50")
    assert left_in_groups(groups, own) == 650  # files give back what they take
    group(groups / "job" / "step", memory__max=310)
    assert left_in_groups(groups, own) == 60
    own.write_text("0::/seen/from/outside\n")  # in a container
    group(groups, memory__max=900, memory__current=1000, memory__stat="anon 1")
    assert left_in_groups(groups, own) == 0
    assert left_in_groups(groups, tmp_path / "missing") == 0


def test_limits_of_the_first_version_of_control_groups(tmp_path):
    groups, own = tmp_path / "groups", tmp_path / "own"
    own.write_text("9:cpu,memory:/job\n1:name=systemd:/\n0::/\n")
    limit = {
        "memory__limit_in_bytes": 1000,
        "memory__usage_in_bytes": 400,
        "memory__stat": "total_inactive_file 50",
    }
    group(groups / "memory" / "job", **limit)
    group(groups / "memory", **limit | {"memory__limit_in_bytes": 2**63 - 4096})
    assert left_in_groups(groups, own) == 650


@pytest.mark.parametrize(("error", "expected"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
    (RuntimeError("std::bad_alloc"), True),
    (MemoryError("std::bad_alloc"), True),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
])  # fmt: skip
def test_what_says_that_memory_ran_out(error, expected):
    assert is_out_of_memory(error) is expected
