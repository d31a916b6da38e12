"""Plotly figures. Pure: arrays in, a figure out; nothing is computed about the model here."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from dashboard.pictures.colouring import Colouring
from dashboard.pictures.palette import Palette
from dashboard.reading.comparison import Curve
from dashboard.reading.selection import Shape

_MARGIN = {"l": 8, "r": 8, "t": 8, "b": 8}


def map_figure(
    points: NDArray[np.float32],
    shown: NDArray[np.int64],
    colours: Colouring,
    hover: list[str],
    palette: Palette,
    outlines: tuple[Shape, ...] = (),
) -> go.Figure:
    """The map: one WebGL trace, because point numbers are ambiguous over several.

    points: (R, 2). shown: ids of the points drawn. hover: one text per drawn point. Colours go as one byte per point
    with a stepped scale: a colour string each would cost seconds. outlines: shapes chosen earlier, drawn dashed.
    """
    n = max(1, len(colours.entries))
    scale: list[list[Any]] = []
    for code, (_, colour, _) in enumerate(colours.entries):
        scale += [[code / n, colour], [(code + 1) / n, colour]]
    marker: dict[str, Any] = {
        "size": 4 if len(shown) > 5000 else 6,
        "opacity": 0.85,
        "color": colours.codes[shown].astype("u1"),
        "cmin": -0.5,
        "cmax": n - 0.5,
        "showscale": False,
    }
    if scale:
        marker["colorscale"] = scale
    x, y = points[shown].astype(np.float32).T
    trace = go.Scattergl(x=x, y=y, mode="markers", marker=marker, text=hover, hovertemplate="%{text}<extra></extra>")
    figure = go.Figure(trace)
    axis = {"visible": False, "showgrid": False, "zeroline": False}
    figure.update_layout(dragmode="lasso", margin=_MARGIN, height=480, showlegend=False, xaxis=axis, yaxis=axis)
    figure.update_layout(newselection={"line": {"color": palette.text, "width": 2, "dash": "dot"}})
    for outline in outlines:
        path = "M" + "L".join(f"{px},{py}" for px, py in outline) + "Z"
        figure.add_shape(
            type="path", path=path, line={"color": palette.text, "width": 1.5, "dash": "dot"}, layer="above"
        )
    return figure


def curve_figure(lines: tuple[Curve, ...], title: str, palette: Palette, share: bool = False) -> go.Figure:
    """Lines over optimiser steps. share: values are accuracies in [0, 1], shown as percent."""
    figure = go.Figure()
    dashes = ("solid", "dash", "dot", "dashdot")
    for number, line in enumerate(lines):
        style = {"color": palette.categories[number % len(palette.categories)], "width": 2, "dash": dashes[number % 4]}
        mode = "lines+markers" if share or len(line.steps) < 3 else "lines"
        value = "%{y:.0%}" if share else "%{y:.3f}"
        figure.add_scatter(
            x=line.steps, y=line.values, name=line.name, mode=mode, line=style, hovertemplate=f"step %{{x}}: {value}"
        )
    figure.update_layout(
        title={"text": f"{title} by step", "font": {"size": 14}},
        height=280,
        margin={"l": 8, "r": 8, "t": 36, "b": 8},
        legend={"orientation": "h", "y": -0.14, "x": 0},
        showlegend=True,
        hovermode="x unified",
    )
    figure.update_xaxes(rangemode="tozero", autorangeoptions={"include": [0, 10]})  # there is no half a step
    figure.update_traces(cliponaxis=False)
    if share:
        figure.update_yaxes(tickformat=".0%", range=[-0.02, 1.02])
    return figure
