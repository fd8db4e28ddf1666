"""The curves of a comparison: validation metric against seconds of training."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import ceil

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from training.compare.comparison import Comparison

DOTS_PER_INCH = 110
MOST_ACROSS = 2
PANEL_IN = (6.2, 3.6)
COLOURS = colormaps["tab10"]
# More points than this would be beads on a string.
MOST_MARKED = 30

Curve = Sequence[tuple[float, float]]


def png(comparison: Comparison) -> bytes:
    """Draw the curves, as the bytes of a PNG file."""
    buffer = BytesIO()
    draw(comparison).savefig(buffer, dpi=DOTS_PER_INCH, format="png")
    return buffer.getvalue()


def draw(comparison: Comparison) -> Figure:
    """Draw a panel for each architecture with a line for each optimizer; one panel, if there is one optimizer."""
    panels = _panels(comparison)
    names = sorted({name for lines in panels.values() for name in lines})
    colours = {name: COLOURS(index % COLOURS.N) for index, name in enumerate(names)}
    across = min(MOST_ACROSS, max(1, len(panels)))
    down = max(1, ceil(len(panels) / across))
    figure = Figure(figsize=(PANEL_IN[0] * across, PANEL_IN[1] * down + 0.4), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (title, lines) in zip(grid.flat, panels.items(), strict=False):
        _draw_panel(axes, lines, colours)
        axes.set_title(title)
    last_s = max((result.curve[-1][0] for _, result in comparison.finished()), default=1.0)
    grid[0, 0].set_xlim(0, 1.03 * last_s)
    metrics = {result.metric for _, result in comparison.finished()}
    figure.supylabel(f"validation {', '.join(metrics)}")
    figure.supxlabel("seconds of training")
    figure.suptitle(f"{comparison.recipe}: {comparison.budget_s:g} s each, seed {comparison.seed}")
    return figure


def _panels(comparison: Comparison) -> dict[str, dict[str, Curve]]:
    finished = comparison.finished()
    one_optimizer = len({combination.optimizer for combination, _ in finished}) < 2
    panels: dict[str, dict[str, Curve]] = {}
    # The best first, so that a panel's legend is in the order of the table.
    for combination, result in finished:
        title, name = combination.arch, combination.optimizer
        if one_optimizer:
            title, name = name, title
        panels.setdefault(title, {})[name] = result.curve
    return panels


def _draw_panel(axes: Axes, lines: Mapping[str, Curve], colours: Mapping[str, object]) -> None:
    for name, curve in lines.items():
        seconds, values = zip(*curve, strict=True)
        marker = "o" if len(curve) <= MOST_MARKED else None
        label = f"{name} {max(values):.1%}"
        axes.plot(seconds, values, color=colours[name], label=label, marker=marker, markersize=3.5, linewidth=1.5)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(labelbottom=True, labelleft=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
