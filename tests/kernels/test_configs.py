from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest
import torch
from retrofit_kernels import configs
from retrofit_kernels._loss.problem import Columns, Rows, Term
from retrofit_kernels.configs import SHARED_MEMORY, Kind, StripConfig, candidates, fits, strip_config

KNOWN = [capability for capability in SHARED_MEMORY if capability >= 80]


@pytest.mark.parametrize("capability", [*KNOWN, 87, 103, 130])
@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("dimension", [1, 32, 100, 768, 4096])
def test_a_configuration_fits_and_can_be_compiled(capability, kind, itemsize, dimension):
    config = strip_config(capability, dimension, itemsize, kind)
    assert fits(config, capability, itemsize)
    assert config.num_warps in (4, 8)
    for size in (config.block_m, config.block_n, config.block_k):
        assert size >= 16 and size & (size - 1) == 0
    assert config.block_k < 2 * max(16, dimension)


@pytest.mark.parametrize("guide", [None, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("prefixes", [(8,), (4, 8)])
@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "ieee"])
def test_tiles_are_for_the_larger_type_of_embeddings_and_guide(monkeypatch, guide, prefixes, precision):
    strip_triton = pytest.importorskip("retrofit_kernels._loss.strip_triton")
    asked = []

    def spy(columns, itemsize, kind, aligned):
        asked.append((itemsize, kind))
        return strip_triton.INTERPRETED

    monkeypatch.setattr(strip_triton, "_config", spy)
    rows = Rows(torch.zeros(3, 8).bfloat16(), torch.zeros(3, 1).long())
    columns = Columns(torch.zeros(5, 8).bfloat16())
    if guide is not None:
        rows = replace(rows, guide=torch.zeros(3, 4, dtype=guide), guide_threshold=torch.zeros(3))
        columns = replace(columns, guide=torch.zeros(5, 4, dtype=guide))
    strip_triton.TritonStrips(Term(rows, columns, torch.ones(()), prefixes), precision).bounds(3, 3)
    wide = guide == torch.float32
    kind = "nested" if len(prefixes) > 1 else "plain" if guide is None else "guided"
    if wide and precision != "tf32":
        kind = "exact nested" if precision == "ieee" and len(prefixes) > 1 else "exact"
    assert asked == [(4 if wide else 2, kind)]


def test_an_unknown_gpu_gets_a_small_tile_without_a_pipeline():
    config = strip_config(130, 768, 2, "plain")
    assert config.num_stages == 1 and config.block_m * config.block_n <= 64 * 64


@pytest.mark.parametrize("capability", [60, 70, 75])
def test_gpus_without_tensor_core_code_are_refused(capability):
    with pytest.raises(ValueError, match=rf"capability must be at least 80, not {capability}"):
        strip_config(capability, 768, 2, "plain")


def test_shared_memory_of_a_pipeline():
    # Counted in machine code: 65,536 bytes on sm_80, 98,304 on sm_90; the estimate is not below them.
    config = StripConfig(128, 128, 64, 8, 3)
    assert 65_536 <= config.shared_memory(80, 2) <= 70_000
    assert 98_304 <= config.shared_memory(90, 2) <= 103_000
    assert not fits(StripConfig(128, 256, 64, 8, 4), 89, 2)
    assert fits(StripConfig(128, 256, 64, 8, 4), 90, 2)


@pytest.mark.parametrize("capability", [80, 89, 90, 120])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_candidates_for_tuning(capability, itemsize):
    found = candidates(capability, itemsize)
    assert len(set(found)) == len(found) > 10
    assert all(fits(config, capability, itemsize) for config in found)
    assert min(config.block_n for config in found) == 64
    assert set(candidates(89, itemsize)) < set(candidates(90, itemsize))


def test_tuning_is_asked_for_by_a_variable(monkeypatch):
    monkeypatch.delenv(configs.AUTOTUNE_VARIABLE, raising=False)
    assert not configs.autotuning()
    monkeypatch.setenv(configs.AUTOTUNE_VARIABLE, "1")
    assert configs.autotuning()


def test_configurations_are_read_without_triton():
    code = "import sys; sys.modules['triton'] = None; import retrofit_kernels.configs"
    subprocess.run([sys.executable, "-c", code], check=True)
