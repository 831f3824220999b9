"""How the cost of a step grows with policies, prompt length and people: docs/performance.json and docs/performance.png.

    python tests/bench/growth.py [--shape 135m]

Every point is a run of its own (of `engine.evaluation.bench.bench`), in which one merged model and the mixture take
turns; what is drawn is their ratio, so that points of different minutes can be compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import plotly.graph_objects as go
import typer
from plotly.subplots import make_subplots

from engine.evaluation.bench import bench
from tests.browser.conftest import chromium
from tests.browser.serving import ROOT

DOCS = ROOT / "docs"
POLICIES = (1, 2, 4, 8)
LENGTHS = (64, 512, 2048)


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    titles = ("policies (prompt of 64)", "tokens of the prompt (4 policies)", "people at once (4 policies)")
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles, horizontal_spacing=0.07)
    for column, (name, axis) in enumerate((("policies", "k"), ("lengths", "prompt_length")), 1):
        rows = found[name]
        at = [str(row[axis]) for row in rows]
        for label, key, colour in (
            ("mixture ÷ one merged model", "ratio_mixed_single", "#0072b2"),
            ("K passes through peft ÷ one merged model", "naive", "#d55e00"),
        ):
            values = [row["naive_ms"] / row["single_ms"] if key == "naive" else row[key] for row in rows]
            line = {"color": colour, "width": 3}
            trace = go.Scatter(x=at, y=values, name=label, line=line, marker={"size": 9}, showlegend=column == 1)
            figure.add_trace(trace, 1, column)
    people = found["people"][0]["concurrency"]
    first = next(iter(people.values()))
    bars = go.Bar(
        x=list(people),
        y=[value / first for value in people.values()],
        name="tokens a second ÷ one person's",
        marker={"color": "#009e73"},
    )
    figure.add_trace(bars, 1, 3)
    figure.update_xaxes(type="category")
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(
        template="plotly_white", width=1200, height=420, margin={"l": 40, "r": 20, "t": 50, "b": 40},
        legend={"orientation": "h", "y": -0.12},
    )  # fmt: skip
    screenshot(figure, path, ".bars")


def screenshot(figure: go.Figure, path: Path, drawn: str) -> None:
    """drawn: what is in the page when the figure is there."""
    page_file = path.with_suffix(".html")
    figure.write_html(page_file, include_plotlyjs=True, config={"staticPlot": True})
    with chromium() as browser:
        size = {"width": figure.layout.width + 20, "height": figure.layout.height + 20}
        page = browser.new_page(viewport=size)
        page.goto(page_file.as_uri())
        page.wait_for_selector(drawn)
        page.screenshot(path=path)
    page_file.unlink()


def main(
    shape: Annotated[str, typer.Option()] = "135m",
    steps: Annotated[int, typer.Option()] = 30,
    dtype: Annotated[str, typer.Option()] = "bfloat16",
) -> None:
    settings: dict[str, Any] = {"shape": shape, "steps": steps, "dtype": dtype, "device": "cpu"}
    found = {
        "policies": [bench(k=k, ways=("naive",), **settings) for k in POLICIES],
        "lengths": [bench(prompt_length=n, ways=("naive",), **settings) for n in LENGTHS],
        "people": [bench(ways=("people",), **settings)],
    }
    (DOCS / "performance.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, DOCS / "performance.png")


if __name__ == "__main__":
    typer.run(main)
