"""Argument checks of the public functions: one line naming the argument, what it is and what is allowed."""

from __future__ import annotations

import torch
from torch import Tensor

Shapes = tuple[tuple[int, ...], ...]
"""Allowed shapes; -1 stands for any size."""


def describe(tensor: Tensor) -> str:
    """A tensor in words, for instance ``shape (3, 4), torch.float32, cpu``."""
    return f"shape {tuple(tensor.shape)}, {tensor.dtype}, {tensor.device}"


def compute_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """The type that logits are computed in: fp64 where an input is fp64, else fp32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def check_embeddings(name: str, value: object) -> None:
    """Raise unless `value` is a floating-point matrix with one embedding per row."""
    tensor = _tensor(name, value)
    if tensor.dim() != 2 or tensor.shape[1] == 0:
        raise ValueError(f"{name} must be a matrix (rows, dimension ≥ 1), but has {describe(tensor)}")
    _check_floating(name, tensor)


def check_same_dimension(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless both matrices have the same number of columns."""
    if tensor.shape[1] != other.shape[1]:
        raise ValueError(
            f"{name} and {other_name} must have the same dimension, "
            f"but have shapes {tuple(tensor.shape)} and {tuple(other.shape)}"
        )


def check_together(**values: object) -> bool:
    """Raise if one of the two arguments is None and the other is not; tell whether they are given."""
    missing = [name for name, value in values.items() if value is None]
    if len(missing) == 1:
        raise ValueError(f"{' and '.join(values)} must be given together, but {missing[0]} is None")
    return not missing


def check_values(name: str, tensor: Tensor) -> None:
    """Raise if a tensor has a shape alone."""
    if tensor.device.type == "meta":
        raise ValueError(f"{name} must hold values, but has {describe(tensor)}")


def check_integers(name: str, value: object, shapes: Shapes, device: torch.device) -> None:
    """Raise unless `value` is an int64 tensor of an allowed shape on `device`."""
    tensor = _tensor(name, value)
    if tensor.dtype != torch.int64:
        raise TypeError(f"{name} must be torch.int64, but has {describe(tensor)}")
    _check_shape(name, tensor, shapes, device)


def check_matching(
    left: tuple[str, object, Shapes], right: tuple[str, object, Shapes], device: torch.device
) -> None:
    """Raise unless both (name, value, allowed shapes) are int64 tensors on `device`, or both are None."""
    if check_together(**{left[0]: left[1], right[0]: right[1]}):
        check_integers(*left, device)
        check_integers(*right, device)


def check_floats(name: str, value: object, shapes: Shapes, device: torch.device) -> None:
    """Raise unless `value` is a floating-point tensor of an allowed shape on `device`."""
    tensor = _tensor(name, value)
    _check_floating(name, tensor)
    _check_shape(name, tensor, shapes, device)


def check_type(name: str, value: object, kind: type) -> None:
    """Raise unless `value` is of a class: of options, or a truth value."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")


def check_bytes(name: str, value: object) -> None:
    """Raise unless `value` is a positive whole number of bytes."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number of bytes, not {value!r}")
    if value <= 0:
        raise ValueError(f"{name} must be a positive number of bytes, not {value}")


def _tensor(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, but has the layout {value.layout}")
    return value


def _check_floating(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"{name} must be fp16, bf16, fp32 or fp64, but has {describe(tensor)}")


def _check_shape(name: str, tensor: Tensor, shapes: Shapes, device: torch.device) -> None:
    def fits(shape: tuple[int, ...]) -> bool:
        return tensor.dim() == len(shape) and all(
            size in (-1, have) for size, have in zip(shape, tensor.shape, strict=True)
        )

    if not any(fits(shape) for shape in shapes):
        allowed = " or ".join(str(shape).replace("-1", "any") for shape in shapes)
        raise ValueError(f"{name} must have shape {allowed}, but has {describe(tensor)}")
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device}, but has {describe(tensor)}")
