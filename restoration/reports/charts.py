"""Line charts as SVG elements in the colors and fonts of the page around them.

The page defines the CSS variables --sans, --quiet, --rule, --train and --accent.
"""

import html
import io
import itertools
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

from etils import epy

with epy.lazy_imports():
    from matplotlib import figure, style, ticker

# Up to this many validation points are drawn as dots with their values as tooltips.
_MOST_DOTS = 60

# Colors and fonts of chart.mplstyle and of the lines, and their replacements.
_PAGE = {
    "#000001": "currentColor",
    "#000002": "var(--quiet)",
    "#000003": "var(--rule)",
    "#000004": "var(--train)",
    "#000005": "var(--accent)",
    "'DejaVu Sans'": "var(--sans)",
}
_LINES = {
    "train": {"color": "#000004", "linewidth": 1.5},
    "validation": {"color": "#000005", "linewidth": 2.25},
}
_STYLE = pathlib.Path(__file__).parent / "templates" / "chart.mplstyle"


def draw(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    id: str,
    x_label: str,
    y_label: str,
    write: Callable[[float], str],
    lower_is_better: bool,
) -> str:
    """Draws one chart and marks its best validation point.

    Args:
      lines: finite points (x, y) of "train", "validation" or both.
      id: prefix of every id in the SVG, so that a page can have several charts.
      x_label: label of the x axis, with the unit.
      y_label: label of the y axis, with the unit.
      write: formats a value of y with its unit.
      lower_is_better: whether the best point is the lowest. Such values (losses) get a
        logarithmic scale if they span a factor of ten.

    Returns:
      An `<svg>` element for an HTML page, the same for the same arguments.
    """
    xs, ys = zip(*itertools.chain(*lines.values()), strict=True)
    span = max(ys) / min(ys) if lower_is_better and min(ys) > 0 else 1
    dots: list[tuple[str, float, float]] = []
    with style.context(["default", _STYLE]):
        axes = figure.Figure().subplots()
        axes.set_xlabel(x_label)
        axes.figure.suptitle(y_label + ", log scale" * (span >= 10), x=0, ha="left")
        axes.locator_params(nbins=5)
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
        axes.xaxis.set_major_formatter("{x:,.10g}")
        if span >= 10:
            steps = (1, 2, 5) if span < 50 else (1, 3) if span < 1000 else (1,)
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=steps))
            axes.yaxis.set_major_formatter(lambda y, _: write(y))
        for name, points in lines.items():
            few = len(points) <= (_MOST_DOTS if name == "validation" else 1)
            look = _LINES[name] | {"marker": "o" if few else "", "clip_on": False}
            axes.plot(*zip(*points, strict=True), **look)
            dots += [(name, *point) for point in points if few]
        if 0 < min(xs) < 0.1 * max(xs):
            axes.set_xlim(left=0)
        if "validation" in lines:
            choose = min if lower_is_better else max
            x, y = choose(lines["validation"], key=lambda point: point[1])
            axes.plot(x, y, "o", c="#000005", ms=10, mew=1.5, mfc="none", clip_on=False)
            left, right = axes.get_xlim()
            at = (x - left) / (right - left)
            text = axes.annotate(f"best {write(y)}", (x, y), gid="best",
                                 xytext=(0, -19 if lower_is_better else 11),
                                 textcoords="offset points")  # fmt: skip
            text.set_ha("left" if at < 0.2 else "right" if at > 0.8 else "center")
        if dots:  # larger invisible dots show the tooltips
            _, x, y = zip(*dots, strict=True)
            axes.plot(x, y, "o", ms=16, alpha=0, gid="notes", zorder=9, clip_on=False)
        file = io.StringIO()
        axes.figure.savefig(file, format="svg", metadata={"Date": None})
    notes = [f"{n}, {x_label} {round(x, 2):,.10g}: {write(y)}" for n, x, y in dots]
    ends = "; ".join(
        f"{name} from {write(points[0][1])} to {write(points[-1][1])}"
        for name, points in lines.items()
    )
    return _fit_page(file.getvalue(), id, f"{y_label} over {x_label}: {ends}", notes)


def _fit_page(svg: str, id: str, label: str, notes: list[str]) -> str:
    """Converts an SVG file to an element in the colors and fonts of the page."""
    box = re.search('viewBox="[^"]+"', svg)[0]
    # Its style sheet would apply to the whole page.
    others = ".*<svg[^>]*>|<metadata>.*</metadata>|<style.*</style>"
    svg = re.sub(others, "", svg, flags=re.DOTALL)

    def adapt(tag: re.Match) -> str:
        text = re.sub(r'( id="|href="#|url\(#)', rf"\1{id}-", tag[0])
        return re.sub("|".join(_PAGE), lambda drawn: _PAGE[drawn[0]], text)

    svg, group, dots = re.sub("<[^>]+>", adapt, svg).partition(f'"{id}-notes"')
    titles = (f"><title>{html.escape(note)}</title></use>" for note in notes)
    dots = re.sub("(?<=<use )([^>]*)/>", lambda use: use[1] + next(titles), dots)
    return f'<svg {box} role="img" aria-label="{html.escape(label)}">{svg}{group}{dots}'
