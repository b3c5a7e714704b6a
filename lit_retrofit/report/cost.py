"""What a run took: wall time, device hours, and money where the user names a price."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the work.

    Attributes:
        name: of the part.
        seconds: wall time.
        device_seconds: wall time, times the devices that worked.
    """

    name: str
    seconds: float
    device_seconds: float


@dataclass(frozen=True, slots=True)
class Cost:
    """All parts of the work.

    Attributes:
        stages: in the order of work.
        price: of an hour of one device, in the user's currency; None where not given.
    """

    stages: tuple[Stage, ...]
    price: float | None

    @property
    def device_seconds(self) -> float:
        """Of all stages."""
        return sum(stage.device_seconds for stage in self.stages)

    def of(self, device_seconds: float) -> str:
        """The price of so much time, with two decimals; empty where no price was given."""
        return "" if self.price is None else f"{device_seconds / 3600 * self.price:,.2f}"
