"""Charts as Vega-Lite specifications; colours are those of the page's style sheet, so that they follow its theme."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelkit.report.text import safe

Spec = dict[str, Any]

_TIP: Spec = {"field": "tip", "type": "nominal"}

# Names of colours in page.css.
INK, DIM, GRID = "var(--text)", "var(--muted)", "var(--grid)"
ACCENT, ACCENT_2, PALE, BAD = "var(--accent)", "var(--accent-2)", "var(--pale)", "var(--bad)"
# Rows that still fit as bars with names beside them.
NAMED = 24
# Of page.css: a variable would be drawn in this font, but measured in another, so that long names would be cut off.
_MONO = "ui-monospace, 'SF Mono', SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace"
# From this ratio on, small figures could not be told apart on an even scale.
_WIDE = 8

_CONFIG: Spec = {
    "background": "transparent",
    "font": "var(--sans)",
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "grid": True,
        "gridColor": GRID,
        "labelColor": DIM,
        "labelPadding": 8,
        "labelFontSize": 11.5,
        "titleColor": DIM,
        "titleFontSize": 11.5,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelLimit": 180,
    },
    "axisX": {"titleAnchor": "end", "labelFlush": True},
    "axisY": {"titleAnchor": "end", "titleAngle": 0, "titleAlign": "left", "titleX": 0, "titleY": -12},
}

# Numbers of axes as the tables write them.
_LABELS = {
    "bytes": "datum.value >= 1e9 ? format(datum.value/1e9,'.3~f')+' GB' : datum.value >= 1e6 ? "
    "format(datum.value/1e6,'.3~f')+' MB' : datum.value >= 1e3 ? format(datum.value/1e3,'.3~f')+' kB' : "
    "format(datum.value,'~f')+' B'",
    "ms": "datum.value >= 1000 ? format(datum.value/1000,'.3~f')+' s' : datum.value >= 1 ? "
    "format(datum.value,'.3~f')+' ms' : format(datum.value*1000,'.3~f')+' µs'",
    "share": "format(datum.value*100,'.2~f')+' %'",
    "count": "format(datum.value,'~s')",
    "decibel": "format(datum.value,'~f')+' dB'",
    "number": "format(datum.value,'.4~g')",
}


def _axis(kind: str, **more: Any) -> Spec:
    return {"labelExpr": _LABELS[kind], "tickCount": 5, **more}


def _sparse(kind: str) -> Spec:
    """Labels of a logarithmic axis at 1, 2, 5, 10 and so on, where there is room for them."""
    first = "slice(format(datum.value, '.0e'), 0, 1)"
    return {"labelExpr": f"indexof('125', {first}) < 0 ? '' : {_LABELS[kind]}", "labelOverlap": "greedy"}


def _spec(tips: Sequence[tuple[str, str]], **parts: Any) -> Spec:
    """A specification; of its tips page.js makes the field ``tip`` of each row, which is quicker than expressions."""
    meta = {"tips": [[field, safe(title)] for field, title in tips], **parts.pop("usermeta", {})}
    parts["usermeta"] = meta
    return {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}, **parts, "config": _CONFIG}


def wide(figures: Iterable[float | None]) -> bool:
    """Whether figures lie so far apart that they need a logarithmic scale; they must all be above 0."""
    known = [each for each in figures if each is not None]
    return bool(known) and min(known) > 0 and max(known) > _WIDE * min(known)


def pareto(
    x: tuple[str, str, str],
    y: tuple[str, str, str],
    *,
    lower: bool,
    tips: Sequence[tuple[str, str]],
    log: bool = False,
) -> Spec:
    """What was tried, as points; the best are joined by a line, the chosen one is filled and named.

    Args:
        x: Field, title and kind of what is paid.
        y: The same of what is had for it.
        lower: Whether less of y is better; up is better in any case.
        tips: Field and title of what is said of a point under the pointer.
        log: Whether x is logarithmic.
    """
    across = {
        "field": x[0],
        "type": "quantitative",
        "title": f"{safe(x[1])}{', logarithmic' if log else ''} →",
        "scale": {"type": "log", "padding": 44, "nice": False}
        if log
        else {"zero": False, "padding": 44, "nice": True},
        "axis": _axis(x[2], grid=False, domain=True, domainColor=GRID, **(_sparse(x[2]) if log else {})),
    }
    up = {
        "field": y[0],
        "type": "quantitative",
        "title": f"↑ {safe(y[1])}{' (lower is better)' if lower else ''}",
        "scale": {"zero": False, "reverse": lower, "padding": 18},
        "axis": _axis(y[2]),
    }
    order = {"field": x[0], "type": "quantitative"}
    chosen = "datum.status === 'chosen'"
    original = "datum.status === 'original'"
    known = f"isValid(datum['{x[0]}']) && isValid(datum['{y[0]}'])"
    return _spec(
        tips,
        height=300,
        data={"name": "rows"},
        transform=[{"filter": known}],
        encoding={"x": across, "y": up},
        layer=[
            {
                "transform": [{"filter": f"datum['front:{x[0]}:{y[0]}']"}],
                "mark": {"type": "line", "color": ACCENT, "opacity": 0.35, "strokeWidth": 1.5},
                "encoding": {"order": order},
            },
            {
                "mark": {"type": "point", "aria": False, "filled": True, "strokeWidth": 1.5, "opacity": 1},
                "encoding": {
                    "size": {"condition": {"test": chosen, "value": 190}, "value": 80},
                    "shape": {"condition": {"test": original, "value": "diamond"}, "value": "circle"},
                    "fill": {
                        "condition": [
                            {"test": chosen, "value": ACCENT},
                            {"test": original, "value": INK},
                            {"test": "datum.status === 'rejected'", "value": "var(--card)"},
                        ],
                        "value": "var(--point)",
                    },
                    "stroke": {
                        "condition": [
                            {"test": chosen, "value": ACCENT},
                            {"test": original, "value": INK},
                            {"test": "datum.status === 'rejected'", "value": BAD},
                        ],
                        "value": "var(--point)",
                    },
                    "tooltip": _TIP,
                },
            },
            {
                "transform": [{"filter": f"{chosen} || {original}"}],
                "mark": {"type": "text", "dy": -16, "fontSize": 12, "fontWeight": 600, "limit": 220},
                "encoding": {
                    "text": {"field": "label"},
                    "color": {"condition": {"test": chosen, "value": ACCENT}, "value": DIM},
                },
            },
        ],
    )


def bars(
    count: int,
    *,
    whole: tuple[str, str] | None,
    part: tuple[str, str],
    kind: str,
    tips: Sequence[tuple[str, str]],
    log: bool = False,
) -> Spec:
    """A figure of each layer; where there are two, the second lies within the first.

    Args:
        count: How many rows there are at most: few are drawn with their names, many side by side.
        whole: Field and title of what it was; None for one figure.
        part: Field and title of what it is.
        kind: Kind of the figure.
        tips: Field and title of what is said of a bar under the pointer.
        log: Whether small figures are to be seen beside large ones.
    """
    title = (whole or part)[1]
    figure = {"type": "quantitative", "stack": None, "axis": _axis(kind), "title": title}
    figure["scale"] = {"type": "symlog", "constant": 100} if log else {"nice": True}
    named = count <= NAMED
    thick, thin = (
        ({"height": {"band": 0.72}}, {"height": {"band": 0.34}})
        if named
        else ({"width": {"band": 1 if count > 200 else 0.8}},) * 2
    )
    layers = []
    if whole is not None:
        layers.append(_bar(whole[0], figure, {**thick, "color": PALE, "cornerRadiusEnd": 2}, named))
    only = thin if whole is not None else thick
    layers.append(_bar(part[0], figure, {**only, "color": ACCENT, "cornerRadiusEnd": 2}, named))
    order = {"field": "index", "type": "ordinal", "sort": {"field": "index", "order": "ascending"}}
    if named:
        labels = {"labelExpr": "datum.label", "labelFont": _MONO, "grid": False, "title": None}
        names = {"field": "name", "type": "nominal", "sort": {"field": "index"}, "axis": labels}
        return _spec(
            tips,
            usermeta={"step": 26},  # page.js makes a height of it, by the rows that are shown
            data={"name": "rows"},
            encoding={"y": names},
            layer=layers,
        )
    bare = {**order, "axis": {"labels": False, "grid": False, "title": "layers in graph order →"}}
    return _spec(
        tips, height=240, data={"name": "rows"}, encoding={"x": {**bare, "scale": {"padding": 0}}}, layer=layers
    )


def _bar(field: str, figure: Mapping[str, Any], mark: Spec, named: bool) -> Spec:
    return {
        "mark": {"type": "bar", "aria": False, **mark},
        "encoding": {"x" if named else "y": {**figure, "field": field}, "tooltip": _TIP},
    }


def curves(series: Sequence[tuple[str, str, str]], title: str, kind: str, *, best: bool) -> Spec:
    """Figures of each epoch as lines.

    Args:
        series: Field, title and colour of each line.
        title: Of the axis.
        kind: Kind of the figures.
        best: Whether the epoch that was kept is marked.
    """
    epoch = {
        "field": "epoch",
        "type": "quantitative",
        "title": "epoch →",
        "axis": {"tickMinStep": 1, "format": "d", "grid": False, "domain": True, "domainColor": GRID},
        "scale": {"nice": False, "padding": 8},
    }
    layers: list[Spec] = []
    if best:
        layers.append(
            {
                "transform": [{"filter": "datum.best"}],
                "mark": {"type": "rule", "strokeDash": [3, 3], "color": DIM, "opacity": 0.7},
                "encoding": {"x": epoch},
            }
        )
    for field, _, colour in series:
        value = {
            "field": field,
            "type": "quantitative",
            "title": f"↑ {safe(title)}",
            "scale": {"zero": False},
            "axis": _axis(kind),
        }
        layers.append(
            {
                "transform": [{"filter": f"isValid(datum['{field}'])"}],
                "mark": {
                    "type": "line",
                    "color": colour,
                    "strokeWidth": 2,
                    "aria": False,
                    "point": {"filled": True, "size": 45, "color": colour},
                },
                "encoding": {"x": epoch, "y": value, "detail": {"field": "run"}, "tooltip": _TIP},
            }
        )
    tips = [("run", "training"), ("epoch", "epoch"), *((f"{field}_text", name) for field, name, _ in series)]
    return _spec(tips, height=220, data={"name": "rows"}, layer=layers)


def course(title: str, *, lower: bool, tips: Sequence[tuple[str, str]]) -> Spec:
    """A search over time: what was tried as points, the best so far as a line.

    Args:
        title: What ``loss`` is.
        lower: Whether it is such that less of it is better; up is better in any case.
        tips: Field and title of what is said of a point under the pointer.
    """
    time = {
        "field": "ended",
        "type": "quantitative",
        "title": "seconds from the start →",
        "axis": _axis("number", grid=False, domain=True, domainColor=GRID),
        "scale": {"padding": 12},
    }
    scale = {"zero": False, "reverse": lower, "padding": 14}

    def up(field: str) -> Spec:
        name = f"↑ {safe(title)}{' (lower is better)' if lower else ''}"
        return {"field": field, "type": "quantitative", "title": name, "scale": scale, "axis": _axis("number")}

    return _spec(
        tips,
        height=260,
        data={"name": "rows"},
        layer=[
            {
                "transform": [{"filter": "isValid(datum.best)"}],
                "mark": {
                    "type": "line",
                    "interpolate": "step-after",
                    "color": ACCENT,
                    "strokeWidth": 2,
                    "aria": False,
                },
                "encoding": {"x": time, "y": up("best"), "order": {"field": "ended", "type": "quantitative"}},
            },
            {
                "mark": {"type": "point", "aria": False, "filled": True, "size": 55, "opacity": 0.9},
                "encoding": {
                    "x": time,
                    "y": up("loss"),
                    "color": {"condition": {"test": "datum.chosen", "value": ACCENT}, "value": "var(--point)"},
                    "tooltip": _TIP,
                },
            },
        ],
    )


def beside(
    x: tuple[str, str], y: tuple[str, str], span: tuple[float, float], kind: str, tips: Sequence[tuple[str, str]]
) -> Spec:
    """Two figures of the same thing as points, and the line where they are equal.

    Args:
        x: Field and title of the one.
        y: The same of the other.
        span: Ends of both axes.
        kind: Kind of both figures.
        tips: Field and title of what is said of a point under the pointer.
    """
    scale = {"domain": list(span), "nice": False, "zero": False, "padding": 8}
    across = {
        "field": x[0],
        "type": "quantitative",
        "title": f"{safe(x[1])} →",
        "scale": scale,
        "axis": _axis(kind, grid=False, domain=True, domainColor=GRID),
    }
    up = {
        "field": y[0],
        "type": "quantitative",
        "title": f"↑ {safe(y[1])}",
        "scale": scale,
        "axis": _axis(kind),
    }
    return _spec(
        tips,
        height=320,
        data={"name": "rows"},
        layer=[
            {
                "data": {"values": [{x[0]: end, y[0]: end} for end in span]},
                "mark": {"type": "line", "strokeDash": [3, 3], "color": DIM, "opacity": 0.7, "aria": False},
                "encoding": {"x": across, "y": up},
            },
            {
                "mark": {"type": "point", "aria": False, "filled": True, "color": ACCENT, "opacity": 0.7},
                "encoding": {
                    "x": across,
                    "y": up,
                    "size": {"field": "size", "type": "quantitative", "scale": None, "legend": None},
                    "tooltip": _TIP,
                },
            },
        ],
    )
