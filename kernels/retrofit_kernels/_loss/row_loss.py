"""The loss of a row from the sum of its exponentials, and its derivatives by the row's similarities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RowLoss(NamedTuple):
    """Losses of some rows at each prefix, and their derivatives.

    Attributes:
        loss: (M, rows).
        factor: (M, rows) derivative by the sum of the exponentials: each exponential times it is the
            derivative by its logit.
        positive: (M, rows, P) derivative by the logit of each positive, ≤ 0.
    """

    loss: Tensor
    factor: Tensor
    positive: Tensor


def row_loss(excess: Tensor, total: Tensor, shares: Tensor, focal: float) -> RowLoss:
    """Cross-entropy of each positive against the row's negatives.

    With L the row's sum of ``exp(logit - offset)`` over its negatives and x = positive's logit - offset ≤ 0:
    ``loss = -log(p) = log(e^x + L) - x``, ``∂loss/∂L = 1 / (e^x + L)`` and ``∂loss/∂x = -L · ∂loss/∂L``. The
    difference p - 1 is never formed: nothing cancels when the loss is nearly 0. The focal loss is
    ``(1 - p)^focal · loss`` (Lin et al., arXiv 1708.02002, eq. 4) with ``1 - p = L / (e^x + L)``.

    Args:
        excess: (M, rows, P), x; for padding any value.
        total: (M, rows), L ≥ 0.
        shares: (rows, P) part of each positive in the row's loss.
        focal: exponent, 0 for none.
    """
    total = total.unsqueeze(2)
    own = excess.exp()
    whole = own + total
    # Where there is nothing to beat, and e^x underflows, both are 0.
    alone = total == 0
    whole = whole.masked_fill(alone, 1.0)
    near = torch.log1p(total + torch.expm1(excess))  # exact for small losses, where x is 0
    loss = torch.where(excess > -0.5, near, whole.log()) - excess
    loss = loss.masked_fill(alone, 0.0)
    factor = whole.reciprocal().masked_fill_(alone, 1.0)
    if focal:
        miss = total / whole
        power = miss.pow(focal)
        slope = (power / miss).masked_fill_(alone, 0.0) * (own / whole) * loss
        loss, factor = power * loss, factor * (power + focal * slope)
    factor = factor * shares
    return RowLoss((loss * shares).sum(2), factor.sum(2), -factor * total)
