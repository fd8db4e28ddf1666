"""The figures of `docs/reliability.md`: written there by the very run that reached them."""

from dataclasses import dataclass
from pathlib import Path

from tests.servers import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- figures: make soak writes them -->\n"
END = "<!-- end of figures -->\n"
HEADS = ("what", "wanted", "reached", "when")


@dataclass(frozen=True)
class Figure:
    """A row of the page.

    Attributes:
        when: Date, commit and machine of the run.
    """

    what: str
    wanted: str
    reached: str
    when: str

    def line(self) -> str:
        return f"| {self.what} | {self.wanted} | {self.reached} | {self.when} |\n"


class Figures:
    """Takes the place of the page's figures of the same name; the others stay, of an earlier run.

    Args:
        page: The file.
        when: Of each figure that is told.
    """

    def __init__(self, page: Path, when: str) -> None:
        self._page = page
        self._when = when

    def tell(self, what: str, wanted: str, reached: str) -> None:
        """Write a figure into the page, before it is judged: what was not reached is to be read there too."""
        text = self._page.read_text()
        figures = {figure.what: figure for figure in read(text)}
        figures[what] = Figure(what, wanted, reached, self._when)
        table = "".join(figure.line() for figure in (Figure(*HEADS), *figures.values()))
        head, lines = table.split("\n", 1)
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        self._page.write_text(f"{before}{BEGIN}{head}\n|{'---|' * len(HEADS)}\n{lines}{END}{after}")


def read(text: str) -> list[Figure]:
    """The figures of a page, in its order."""
    lines = text.partition(BEGIN)[2].partition(END)[0].splitlines()[2:]
    return [Figure(*line.removeprefix("| ").removesuffix(" |").split(" | ")) for line in lines]
