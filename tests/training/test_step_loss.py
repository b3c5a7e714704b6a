"""Memory that runs out in the loss or on its way back: the step is repeated, its gradients are the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lit_retrofit.training.objective import ObjectiveOutput
from lit_retrofit.training.step_loss import StepLoss

FULL = "DefaultCPUAllocator: can't allocate memory"


class Cached:
    """What a step keeps, as far as the loss knows of it."""

    def __init__(self, may_release: bool = True) -> None:
        self.leaf = torch.tensor([[0.5, -1.0], [2.0, 0.25]], requires_grad=True)
        self.may_release, self.released = may_release, 0

    def release(self) -> None:
        self.released += 1
        self.may_release = False


def loss_over(leaf: torch.Tensor, scale: nn.Parameter) -> ObjectiveOutput:
    return ObjectiveOutput((scale.exp() * leaf).square().sum(), {})


def fails_once(function: Callable, message: str = FULL) -> Callable:
    """The first of its calls runs out of memory."""
    calls = []

    def tried(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError(message)
        return function(*arguments)

    return tried


def fails_once_on_the_way_back(cached: Cached, scale: nn.Parameter) -> None:
    """Once both gradients are there: what a try adds to them must not stay."""
    arrived: list[int] = []

    def fail(_) -> None:
        arrived.append(1)
        if len(arrived) == 2:
            raise RuntimeError(FULL)

    cached.leaf.register_post_accumulate_grad_hook(fail)
    scale.register_post_accumulate_grad_hook(fail)


@pytest.mark.parametrize("where", ["nowhere", "the loss", "its way back"])
def test_gradients_are_those_of_one_try(where: str) -> None:
    """(e^s x)²: by x it is 2 e^2s x, by s 2 e^2s x²; scaled by 3, and added to a gradient of before."""
    scale, cached = nn.Parameter(torch.tensor(0.5)), Cached()
    scale.grad = torch.tensor(10.0)
    compute = lambda: loss_over(cached.leaf, scale)  # noqa: E731
    if where == "its way back":
        fails_once_on_the_way_back(cached, scale)
    loss = StepLoss(cached, fails_once(compute) if where == "the loss" else compute, [scale])  # type: ignore[arg-type]
    (3 * loss.value).backward()
    loss.backward()
    factor = 3 * 2 * torch.tensor(1.0).exp()
    assert torch.allclose(cached.leaf.grad, factor * cached.leaf.detach())
    assert scale.grad.item() == pytest.approx(10 + (factor * cached.leaf.detach().square()).sum().item())
    assert cached.released == (where != "nowhere")


@pytest.mark.parametrize(("may_release", "message", "processes"), [
    (False, FULL, 1), (True, "shapes do not match", 1), (True, FULL, 2),
])  # fmt: skip
def test_what_is_not_repeated(monkeypatch, may_release: bool, message: str, processes: int) -> None:
    """Other errors, a lack of memory with no graph to let go, and one of several processes."""
    monkeypatch.setattr("lit_retrofit.training.step_loss.process_count", lambda: processes)
    scale, cached = nn.Parameter(torch.tensor(0.5)), Cached(may_release)
    compute = fails_once(lambda: loss_over(cached.leaf, scale), message)
    with pytest.raises(RuntimeError, match=message):
        StepLoss(cached, compute, [scale])  # type: ignore[arg-type]
    assert cached.released == 0


def test_the_way_back_begins_with_the_value() -> None:
    cached = Cached()
    loss = StepLoss(cached, lambda: loss_over(cached.leaf, nn.Parameter(torch.zeros(()))), ())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="value"):
        loss.backward()


def test_a_failed_graph_is_gone_before_the_next_try() -> None:
    """Otherwise both would be in memory."""
    import weakref

    scale, cached = nn.Parameter(torch.tensor(0.5)), Cached()
    graphs: list[weakref.ref] = []

    def compute() -> ObjectiveOutput:
        assert all(graph() is None for graph in graphs)
        kept = torch.zeros(1)
        graphs.append(weakref.ref(kept))
        output = loss_over(cached.leaf, scale)
        output.loss.register_hook(lambda gradient, kept=kept: gradient)
        return output

    fails_once_on_the_way_back(cached, scale)
    loss = StepLoss(cached, compute, [scale])  # type: ignore[arg-type]
    loss.value.backward()
    loss.backward()
    assert len(graphs) == 2
