"""A bundle's report: figures as JSON, pictures as PNG, and all of it as one page that needs no network."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training.tasks.task import Mistake

DOTS_PER_INCH = 110
PNG_MAGIC = b"\x89PNG"

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ background: #f4f4f4; padding: 1rem; overflow-x: auto; }}
img {{ max-width: 100%; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #ddd; vertical-align: top; }}
td img {{ image-rendering: pixelated; width: 6rem; }}
</style>
<h1>{title}</h1>
<pre>{table}</pre>
{pictures}
{mistakes}
<h2>All figures</h2>
<pre>{figures}</pre>
</html>
"""


@dataclass(frozen=True)
class Report:
    """What a bundle says to a person.

    Attributes:
        title: Its name and what it is.
        table: The figures that matter, as lines of text.
        figures: All of them.
        pictures: File name without its ending -> picture.
        mistakes: The worst first.
    """

    title: str
    table: str
    figures: Mapping[str, Any]
    pictures: Mapping[str, Figure]
    mistakes: Sequence[Mistake] = ()


def write_report(directory: Path, report: Report) -> None:
    """Write `report.json`, `report/*.png` and `report.html` into a bundle's directory."""
    (directory / "report.json").write_text(json.dumps(report.figures, indent=2) + "\n", "utf-8")
    (directory / "report").mkdir()
    pngs = {name: _png(figure) for name, figure in report.pictures.items()}
    for name, png in pngs.items():
        (directory / "report" / f"{name}.png").write_bytes(png)
    (directory / "report.html").write_text(_page(report, pngs), "utf-8")


def _page(report: Report, pngs: Mapping[str, bytes]) -> str:
    shown = {name: value for name, value in report.figures.items() if name != "training"}
    return PAGE.format(
        title=html.escape(report.title),
        table=html.escape(report.table),
        pictures="\n".join(
            f"<h2>{_spoken(name)}</h2>\n{_image(png, _spoken(name))}" for name, png in pngs.items()
        ),
        mistakes=_mistakes(report.mistakes),
        figures=html.escape(json.dumps(shown, indent=2)),
    )


def _mistakes(mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return ""
    rows = "\n".join(
        f"<tr><td>{_input(mistake.content)}</td><td>{html.escape(mistake.expected)}</td>"
        f"<td>{html.escape(mistake.predicted)}</td><td>{mistake.score:.3f}</td></tr>"
        for mistake in mistakes
    )
    head = "<tr><th>input</th><th>expected</th><th>predicted</th><th>score</th></tr>"
    return f"<h2>Worst mistakes on the test set</h2>\n<table>\n{head}\n{rows}\n</table>"


def _input(content: bytes) -> str:
    if content.startswith(PNG_MAGIC):
        return _image(content, "input")
    return html.escape(content.decode("utf-8", "replace"))


def _image(png: bytes, alternative: str) -> str:
    encoded = base64.b64encode(png).decode("ascii")
    return f'<img alt="{html.escape(alternative)}" src="data:image/png;base64,{encoded}">'


def _spoken(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DOTS_PER_INCH, format="png")
    return buffer.getvalue()
