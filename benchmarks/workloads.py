"""What is asked of the servers: a model, and the bytes that are posted to it."""

import csv
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPHS = tuple(ROOT / "docs" / "images" / f"{name}.jpg" for name in ("china", "flower"))
TINY = 32
TINY_BODIES = 16
LARGE_WIDTH = 1920
# Of each photograph.
SQUARES = 110
# Of the lengths that reviews have.
SENTENCES = (
    "Worth seeing, just once.",
    "A waste of two good actors.",
    "The film is slow, but its last half hour makes up for every minute of it.",
    "Nobody in this story behaves the way that anyone you have ever met would behave.",
    "It is funny.",
    "Effective, well acted, and far too long for what it has to say.",
    "By the time the plot remembers its own beginning, the audience has forgotten it, and neither seems to care.",
    "What a delight to find that a film for children trusts them to understand silence.",
    "The jokes are old, the songs are older, and the hero is younger than both by about a hundred years.",
    "Beautifully photographed, with a warmth in its colours that the script does not always share, this is a "
    "portrait of a town more than of the people who leave it.",
    "I laughed twice, once at the film.",
    "There is a moment, near the end, in which the mother looks at the empty chair and says nothing at all; it "
    "lasts perhaps five seconds, and it tells more about the family than the two hours of shouting, weeping, "
    "slammed doors and letters read aloud that came before it, which is why I would still send you to see it.",
    "Loud and empty.",
    "If you liked the book you will miss half of it here; if not, you will wonder what the fuss was about.",
    "The best performance is that of the dog, who at least looks as if he had read the whole script.",
    "A clever idea, told with patience, by somebody who knows how people talk when they think nobody listens.",
)
FEWEST_WORDS = 2
MOST_SHORT_WORDS = 11


@dataclass(frozen=True)
class Workload:
    """A model under a name, how it is published, and what is posted to it.

    Attributes:
        inputs: How many bodies one request carries.
        optimize: Options with which faster forms of the model are published; without any, there are none.
        also: Variants of a server that are measured on this one.
    """

    name: str
    model: str
    publish: Sequence[str]
    content_type: str
    bodies: Callable[[], list[bytes]]
    prepare: Callable[[Path], None] = lambda _scratch: None
    inputs: int = 1
    optimize: Sequence[str] = ()
    also: Sequence[str] = ()

    @property
    def parts(self) -> Sequence["Workload"]:
        """It has only itself; a mix has several."""
        return (self,)

    def requests(self) -> list[tuple[bytes, ...]]:
        """What each request carries; they are sent in turn."""
        bodies = self.bodies()
        count = len(bodies)
        return [tuple(bodies[(first + more) % count] for more in range(self.inputs)) for first in range(count)]


@dataclass(frozen=True)
class Mix:
    """Workloads whose models one server has at the same time; each is asked over an even share of the connections.

    Attributes:
        also: Variants of a server that are measured on it.
    """

    name: str
    parts: Sequence[Workload]
    also: Sequence[str] = ()

    @property
    def inputs(self) -> int:
        """How many bodies one request carries, at most."""
        return max(part.inputs for part in self.parts)


class TinyNet(nn.Module):
    """Two convolutions: so little work that everything but the model shows."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Linear(16, 10)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits of shape NK."""
        logits_NK: Tensor = self.head(self.features(images_NCHW).mean((2, 3)))
        return logits_NK


def _tiny_files(scratch: Path) -> None:
    torch.manual_seed(0)
    torch.jit.script(TinyNet().eval()).save(str(scratch / "tiny.pt"))
    (scratch / "tiny.txt").write_text("".join(f"label {index}\n" for index in range(10)))


def _sentences_file(scratch: Path) -> None:
    """Write a table to train on, of what can be learned from so few: whether a text is long."""
    with (scratch / "sentences.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("text", "label"))
        for sentence in SENTENCES:
            words = sentence.split()
            for end in range(FEWEST_WORDS, len(words) + 1):
                table.writerow((" ".join(words[:end]), "long" if end > MOST_SHORT_WORDS else "short"))


def _sentences() -> list[bytes]:
    return [sentence.encode() for sentence in SENTENCES]


def _photographs() -> list[bytes]:
    return [path.read_bytes() for path in PHOTOGRAPHS]


def _tiny_bodies() -> list[bytes]:
    photograph = Image.open(PHOTOGRAPHS[0])
    places = [(37 * index % 600, 53 * index % 380) for index in range(TINY_BODIES)]
    return [_jpeg(photograph.crop((x, y, x + TINY, y + TINY))) for x, y in places]


def _large_photographs() -> list[bytes]:
    opened = [Image.open(path) for path in PHOTOGRAPHS]
    return [
        _jpeg(each.resize((LARGE_WIDTH, round(each.height * LARGE_WIDTH / each.width)), Image.Resampling.BICUBIC))
        for each in opened
    ]


def _cut_photographs(scratch: Path) -> None:
    """Write squares cut out of the photographs: to quantize by, and to compare forms of a model on."""
    folder = scratch / "squares"
    folder.mkdir(exist_ok=True)
    places = random.Random(0)  # noqa: S311 (no secret is made of it)
    for path in PHOTOGRAPHS:
        photograph = Image.open(path)
        for index in range(SQUARES):
            side = round(min(photograph.size) * places.uniform(0.6, 1))
            left, top = (places.randint(0, length - side) for length in photograph.size)
            square = photograph.crop((left, top, left + side, top + side))
            (folder / f"{path.stem}-{index}.jpg").write_bytes(_jpeg(square))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _zoo(arch: str) -> tuple[str, ...]:
    return ("torchvision", arch, "--weights", "none", "--name", arch)


def _tiny_import(scratch: str) -> tuple[str, ...]:
    files = (f"{scratch}/tiny.pt", "--labels", f"{scratch}/tiny.txt")
    return ("import", *files, "--task", "image", "--size", str(TINY), "--name", "tiny")


def _text(arch: str, scratch: str, *size: str) -> tuple[str, ...]:
    table = ("--data", f"{scratch}/sentences.csv", "--runs-dir", f"{scratch}/runs")
    # Other forms of a model are judged by a hundred texts at least.
    gate = ("--epochs", "4", "--test-fraction", "0.5", "--min-accuracy", "0")
    return ("text", *table, *gate, "--arch", arch, "--name", arch, *size)


JPEG = "image/jpeg"
TEXT = "text/plain"
SCRATCH = "{scratch}"
# Imported models, whose tolerance is declared: weights that are random tell a thousand labels apart by next to
# nothing, and squares of two photographs show many things at once, or none.
OPTIMIZE = ("--data", f"{SCRATCH}/squares", "--min-agreement", "0.8")
AUTO = ("lantern-auto",)
WORKERS = ("lantern-workers",)
LSTM = _text("lstm", SCRATCH, "--dim", "256", "--hidden-size", "256")
# The size of BERT-Mini.
TRANSFORMER = _text("transformer", SCRATCH, "--dim", "256", "--layers", "4", "--heads", "4")


def _of_photographs(
    name: str,
    model: str,
    publish: Sequence[str],
    bodies: Callable[[], list[bytes]] = _photographs,
    inputs: int = 1,
) -> Workload:
    return Workload(name, model, publish, JPEG, bodies, _cut_photographs, inputs, OPTIMIZE, AUTO)


def _of_texts(arch: str, publish: Sequence[str], optimize: Sequence[str] = ()) -> Workload:
    also = (*AUTO, *WORKERS) if optimize else WORKERS
    return Workload(arch, arch, publish, TEXT, _sentences, _sentences_file, optimize=optimize, also=also)


TINY_NET = Workload("tiny", "tiny", _tiny_import(SCRATCH), JPEG, _tiny_bodies, _tiny_files, also=WORKERS)
RESNET18 = _of_photographs("resnet18", "resnet18", _zoo("resnet18"))
WORKLOADS: dict[str, Workload | Mix] = {
    each.name: each
    for each in (
        TINY_NET,
        RESNET18,
        _of_photographs("resnet50", "resnet50", _zoo("resnet50")),
        _of_photographs("efficientnet", "imagenet", ("imagenet",)),
        _of_photographs("large", "resnet18", _zoo("resnet18"), _large_photographs),
        _of_texts("lstm", LSTM),
        _of_texts("transformer", TRANSFORMER, ("--data", f"{SCRATCH}/sentences.csv")),
        _of_photographs("resnet18x4", "resnet18", _zoo("resnet18"), inputs=4),
        # Microseconds of one beside tens of milliseconds of the other.
        Mix("mix", (TINY_NET, RESNET18), also=(*AUTO, *WORKERS)),
    )
}
