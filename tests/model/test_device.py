"""The choice of device and precision."""

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model import device
from lit_retrofit.model.device import autocast_dtype, choose_device, multiplies_bf16, tokens_at_a_time

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
