"""The arithmetic, against formulas written down a second time in numpy and by hand."""

import math

import numpy as np
import pytest
import torch

from lit_retrofit.merging.weights import combine, interpolate, slerp


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(3, 4, generator=generator), "b": torch.randn(5, generator=generator)}


def test_the_average_is_the_mean_whichever_model_stands_in_for_the_base() -> None:
    models = [weights(seed) for seed in range(3)]
    for base in (models[0], weights(9)):
        found = combine(base, [(1 / 3, model) for model in models])
        for name in found:
            mean = np.mean([model[name].numpy() for model in models], axis=0)
            np.testing.assert_allclose(found[name].numpy(), mean, atol=1e-6)


def test_task_arithmetic() -> None:
    base, first, second = weights(0), weights(1), weights(2)
    kept = {name: weight.clone() for name, weight in base.items()}
    found = combine(base, [(1.0, first), (-0.5, second)])
    for name in found:
        b, f, s = (part[name].double() for part in (base, first, second))
        assert torch.allclose(found[name].double(), b + (f - b) - 0.5 * (s - b), atol=1e-6)
        assert torch.equal(base[name], kept[name])  # the base itself is left alone


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_the_ends_are_the_models(method: str) -> None:
    base, target = weights(0), weights(1)
    for weight, end in ((0.0, base), (1.0, target)):
        found = interpolate(base, target, weight, method)  # type: ignore[arg-type]
        assert all(torch.allclose(found[name], end[name], atol=1e-6) for name in end)


def test_linear_interpolation() -> None:
    found = interpolate({"a": torch.tensor([0.0, 2.0])}, {"a": torch.tensor([4.0, 0.0])}, 0.25, "linear")
    assert found["a"].tolist() == [1.0, 1.5]


def test_slerp_turns_at_a_constant_rate() -> None:
    """Between (1, 0) and (0, 1) a third of the way is 30 degrees, at length one."""
    found = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 1 / 3)
    assert found.tolist() == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)], abs=1e-6)
    # Linearly it would be shorter than one.
    assert torch.lerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 1 / 3).norm() < 0.75


def test_slerp_against_the_formula_by_arccos() -> None:
    a, b = weights(3)["a"], weights(4)["a"]
    x, y = a.double().numpy().ravel(), b.double().numpy().ravel()
    theta = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    for t in (0.1, 0.5, 0.9):
        expected = (np.sin((1 - t) * theta) * x + np.sin(t * theta) * y) / np.sin(theta)
        np.testing.assert_allclose(slerp(a, b, t).numpy().ravel(), expected, atol=1e-6)


def test_slerp_of_nearly_equal_opposite_and_empty_vectors() -> None:
    a = weights(5)["a"]
    near = a * (1 + 1e-7)
    assert torch.allclose(slerp(a, near, 0.5), a, atol=1e-6)
    # An angle of 1e-5: arccos of a float32 cosine would call it zero or 3e-4.
    turned = torch.tensor([1.0, 1e-5])
    assert slerp(torch.tensor([1.0, 0.0]), turned, 0.5)[1].item() == pytest.approx(5e-6, rel=1e-3)
    assert torch.allclose(slerp(a, -a, 0.25), 0.5 * a, atol=1e-6)
    zero = torch.zeros(3)
    assert torch.equal(slerp(zero, torch.ones(3), 0.5), torch.full((3,), 0.5))
    assert torch.equal(slerp(zero, zero, 0.5), zero)
