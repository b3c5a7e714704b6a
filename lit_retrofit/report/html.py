"""What the pages share: the frame, the style, the charts, and how numbers are written."""

from __future__ import annotations

from datetime import datetime, timezone

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lit_retrofit.report.numbers import delta, duration, figure, plain, score, short, span, tone

_PACKAGE = "lit_retrofit.report"


def make_environment(package: str = _PACKAGE) -> Environment:
    """The environment of a self-contained page: all texts are escaped, nothing is loaded from anywhere.

    Args:
        package: has the page's own templates in its folder ``templates``; they may extend, include and import
            those of the report.
    """
    loaders = [PackageLoader(name) for name in dict.fromkeys((package, _PACKAGE))]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=score, delta=delta, tone=tone, short=short, span=span, figure=figure, duration=duration,
        count="{:,}".format, plain=plain, date=_date,
    )  # fmt: skip
    style = loaders[-1].get_source(environment, "style.css")[0]
    environment.globals["style"] = Markup(style)  # the package's own file
    return environment


def _date(started: float) -> str:
    return datetime.fromtimestamp(started, tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
