"""A run folder with random trained weights, as `fit` leaves one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder


@pytest.fixture
def run(model_folder, tmp_path):
    """A run folder with a trained checkpoint; its encoder."""

    def make(kind: str = "bert", **options) -> tuple[Path, Encoder]:
        torch.manual_seed(3)
        encoder = build_encoder(EncoderOptions(str(model_folder(kind)), **options))
        with torch.no_grad():
            for parameter in encoder.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        trained = {f"encoder.{n}": p.detach() for n, p in encoder.named_parameters() if p.requires_grad}
        checkpoints = tmp_path / "run" / "checkpoints"
        checkpoints.mkdir(parents=True)
        torch.save(
            {"state_dict": trained, "encoder_options": asdict(encoder.options)}, checkpoints / "last.ckpt"
        )
        return tmp_path / "run", encoder

    return make
