"""Arithmetic on the weights of models of one architecture: names to tensors, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

Method = Literal["linear", "slerp"]
Weights = dict[str, Tensor]


def combine(base: Weights, models: Iterable[tuple[float, Weights]]) -> Weights:
    """The sum base + Σ c·(model − base): with coefficients 1 / n the average of n models.

    Averages are Wortsman et al.'s model soups (arXiv 2203.05482), other sums the task arithmetic of Ilharco
    et al. (arXiv 2212.04089). Where the coefficients add up to one the base cancels: any of the models may
    stand in for it.

    Args:
        base: the weights that all models started from.
        models: each with its coefficient; taken one after the other, so that one is in memory at a time.
    """
    total = {name: weight.clone() for name, weight in base.items()}
    for coefficient, weights in models:
        for name, weight in weights.items():
            total[name].add_(weight - base[name], alpha=coefficient)
    return total


def interpolate(base: Weights, target: Weights, weight: float, method: Method) -> Weights:
    """The weights at ``weight`` of the way from the base (0) to the target (1).

    Args:
        base: at 0.
        target: at 1.
        weight: may lie beyond 0 and 1 too.
        method: linear, (1 − w)·base + w·target; or slerp, each tensor along the arc between the two.
    """
    between = torch.lerp if method == "linear" else slerp
    return {name: between(base[name], target[name], weight) for name in base}


def slerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Spherical interpolation (Shoemake 1985) of two tensors taken as vectors of any length.

    With the angle θ between them: (sin((1 − w)·θ) · start + sin(w·θ) · end) / sin θ. The angle comes from
    atan2, which is exact for the small ones between a model and its retrofit. Vectors on one line, or of
    length zero, have no arc between them and are interpolated linearly.

    Returns:
        A tensor of the start's shape and type.
    """
    a, b = start.double().flatten(), end.double().flatten()
    lengths = a.norm() * b.norm()
    if lengths == 0:
        return torch.lerp(start, end, weight)
    u, v = a / a.norm(), b / b.norm()
    angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())  # Kahan: exact for every angle
    if angle.sin() < 1e-9:
        return torch.lerp(start, end, weight)
    mixed = (((1 - weight) * angle).sin() * a + (weight * angle).sin() * b) / angle.sin()
    return mixed.view_as(start).to(start.dtype)
