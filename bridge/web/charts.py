"""Charts as SVG, made by the server: readable without scripts, and within the content security policy.

An SVG contains no text and no styles: widths and heights are attributes, colors are classes of the style sheet, and
every column has a `<title>`. The axis is HTML below it, and the numbers follow in a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 1000
HEIGHT: Final = 200
STRIP_HEIGHT: Final = 10
_GAP: Final = 0.2
"""Part of a column's width that stays empty."""


@dataclass(frozen=True)
class ChartSeries:
    """One color of a chart: its name, its CSS class (`good`, `wait`, `hold`, `warn`, `bad`), and a value per slot."""

    name: str
    css_class: str
    values: Sequence[int]


@dataclass(frozen=True)
class StripCell:
    """One period of a strip: its CSS class, and what its tooltip says."""

    css_class: str
    text: str


def stacked_columns(
    slots: Sequence[datetime],
    series: Sequence[ChartSeries],
    label: str,
    *,
    zone: tzinfo = UTC,
    has_totals: bool = True,
) -> Markup:
    """Return a chart with one column per slot, the series on top of each other, with a legend and a table.

    `slots` are the starts of the periods, in order; each series has as many values. `label` describes the chart in one
    sentence, for screen readers too. Without `has_totals`, the sum of a series means nothing, and is left out.
    """
    names = [_slot_name(slot, slots, zone) for slot in slots]
    columns = list(zip(*(one.values for one in series), strict=True))
    highest = max((sum(column) for column in columns), default=0)
    parts = [
        Markup('<figure class="chart"><figcaption>{}</figcaption>').format(label),
        Markup('<p class="scale">{}</p>').format(f"{highest:,}"),
        Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">').format(
            WIDTH, HEIGHT, _description(label, series) if has_totals else f"{label}, at most {highest:,}"
        ),
        *(
            _column(index, len(columns), names[index], series, values, highest)
            for index, values in enumerate(columns)
            if any(values)
        ),
        Markup("</svg>"),
        _axis(names),
        _legend(series) if has_totals else Markup(""),
        _table(label, names, series),
        Markup("</figure>"),
    ]
    return Markup("").join(parts)


def strip(cells: Sequence[StripCell], label: str) -> Markup:
    """Return a row of equal cells, such as the state of a connection per half hour. `label` describes it."""
    width = WIDTH / max(1, len(cells))
    bars = _markup(
        f'<rect class="{cell.css_class}" x="{index * width:.2f}" y="0" width="{width * (1 - _GAP):.2f}"'
        f' height="{STRIP_HEIGHT}"><title>{escape(cell.text)}</title></rect>'
        for index, cell in enumerate(cells)
    )
    return Markup(
        '<svg class="strip" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, STRIP_HEIGHT, label, bars)


def _column(
    index: int, count: int, name: str, series: Sequence[ChartSeries], values: Sequence[int], highest: int
) -> Markup:
    width = WIDTH / count
    parts = [f"<g><title>{escape(f'{name}: {_summary(series, values)}')}</title>"]
    bottom = float(HEIGHT)
    for one, value in zip(series, values, strict=True):
        if not value:
            continue
        height = max(2.0, value / highest * HEIGHT)
        bottom -= height
        parts.append(
            f'<rect class="{one.css_class}" x="{(index + _GAP / 2) * width:.2f}" y="{max(0.0, bottom):.2f}"'
            f' width="{width * (1 - _GAP):.2f}" height="{height:.2f}"/>'
        )
    return _markup([*parts, "</g>"])


def _markup(parts: Iterable[str]) -> Markup:
    """Join parts that are HTML already: `Markup.format` takes ten times as long, which counts for hundreds of cells."""
    return Markup("".join(parts))  # noqa: S704


def _axis(names: Sequence[str]) -> Markup:
    """Return the first, the middle and the last slot as the labels of the axis."""
    if not names:
        return Markup("")
    shown = dict.fromkeys((names[0], names[len(names) // 2], names[-1]))
    labels = Markup("").join(Markup("<span>{}</span>").format(name) for name in shown)
    return Markup('<p class="axis" aria-hidden="true">{}</p>').format(labels)


def _legend(series: Sequence[ChartSeries]) -> Markup:
    items = Markup("").join(
        Markup('<li><span class="swatch {}"></span>{} <b>{}</b></li>').format(
            one.css_class, one.name, f"{sum(one.values):,}"
        )
        for one in series
    )
    return Markup('<ul class="legend">{}</ul>').format(items)


def _table(label: str, names: Sequence[str], series: Sequence[ChartSeries]) -> Markup:
    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(one.name) for one in series)
    rows = _markup(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f'<td class="number">{one.values[index]:,}</td>' for one in series)
        + "</tr>"
        for index, name in enumerate(names)
        if any(one.values[index] for one in series)
    )
    return Markup(
        '<details class="numbers"><summary>As numbers</summary>'
        '<div class="scroll" tabindex="0" role="region" aria-label="{}">'
        '<table class="plain"><caption>{}</caption><thead><tr><th scope="col">Period</th>{}</tr></thead>'
        "<tbody>{}</tbody></table></div></details>"
    ).format(f"Numbers: {label}", label, heads, rows)


def _slot_name(slot: datetime, slots: Sequence[datetime], zone: tzinfo) -> str:
    """Return the start of a period: with the date if the chart covers several days, without the time for whole days."""
    local, step = slot.astimezone(zone), _step(slots)
    if step >= timedelta(days=1):
        return f"{local:%d %b}"
    is_long = len(slots) * step > timedelta(days=1)
    return f"{local:%d %b %H:%M}" if is_long else f"{local:%H:%M}"


def _step(slots: Sequence[datetime]) -> timedelta:
    return slots[1] - slots[0] if len(slots) > 1 else timedelta(hours=1)


def _summary(series: Sequence[ChartSeries], values: Sequence[int]) -> str:
    return ", ".join(_named(one.name, value) for one, value in zip(series, values, strict=True) if value)


def _description(label: str, series: Sequence[ChartSeries]) -> str:
    totals: Iterator[str] = (_named(one.name, sum(one.values)) for one in series)
    return f"{label}: {', '.join(totals)}"


def _named(name: str, value: int) -> str:
    return f"{name} {value:,}"
