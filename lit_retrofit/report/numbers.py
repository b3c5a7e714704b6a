"""How numbers and settings are written."""

from __future__ import annotations

from typing import Any

from lit_retrofit.evaluation.significance import Difference


def score(value: float | None) -> str:
    """Three decimals, or a dash for what was not measured."""
    return "–" if value is None else f"{value:.3f}"


def delta(value: float, decimals: int = 3) -> str:
    """A signed difference with a true minus; no sign on what rounds to nothing."""
    text = f"{abs(value):.{decimals}f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def short(value: float) -> str:
    """Two decimals without a leading zero, for the ends of an interval."""
    return f"{value:.2f}".removeprefix("0")


def figure(value: float) -> str:
    """Three digits that count, without an exponent for what is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def span(difference: Difference) -> str:
    """The interval of a difference, signed ends."""
    return f"{_bare(difference.low)} … {_bare(difference.high)}"


def _bare(value: float) -> str:
    return delta(value).replace("0.", ".", 1)


def tone(value: float) -> str:
    """The class that colours a difference, as it is shown."""
    shown = delta(value)
    return {"+": "good", "−": "bad"}.get(shown[0], "soft")


def duration(seconds: float) -> str:
    """For instance ``38 s``, ``4 min 05 s``, ``2 h 10 min``, with spaces that do not break."""
    whole = round(seconds)
    text = f"{whole // 3600} h {whole % 3600 // 60:02} min"
    if whole < 60:
        text = f"{whole} s"
    elif whole < 3600:
        text = f"{whole // 60} min {whole % 60:02} s"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def plain(value: Any) -> str:
    """A setting's value in words; quoted where white space matters."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return f"“{text}”" if text != text.strip() or not text else text
