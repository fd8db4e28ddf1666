"""Images a second of training: Lantern's loop beside the loop that most people write.

    python -m benchmarks.training_speed [--arch convnet] [--images 12800] [--rounds 5]

The same network, data, augmentation, batch size and optimizer, in alternating rounds within one run:

    usual    torchvision's FashionMNIST, transforms on each image, DataLoader, fp32, `loss.item()` at every step
    tuned    the same in bf16 and channels_last, for whoever knows of them
    lantern  the steps of `python -m training fashion --optimizer adamw`, in the precision that `auto` takes

The loaders get as many workers as is fastest here, found first. Timed are the steps alone, once each way is
warm: neither side validates or saves. Lantern's steps include its moving average of the weights.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain, islice, repeat
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import FashionMNIST
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from training.architectures.catalogue import image_network
from training.commands import FashionOptions
from training.datasets import fashion_mnist
from training.distributed import Group
from training.machine import this_machine
from training.progress import Progress
from training.randomness import seed_here
from training.recipes.fashion import prepare
from training.state import Run

WARM_STEPS = 5
WORKERS = (0, 1, 2)
MEAN, STD = (0.2860,), (0.3530,)


def main() -> None:
    """Measure, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="convnet", help="convnet or resnet")
    parser.add_argument("--images", type=int, default=12_800, help="trained on in each round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run, options = _run(FashionOptions(arch=arguments.arch, optimizer="adamw", models_dir=Path(scratch)))
        _measure(run, options, _usual_data(Path(scratch), options), arguments.images, arguments.rounds)


def _measure(run: Run, options: FashionOptions, data: FashionMNIST, images: int, rounds: int) -> None:
    steps = max(1, images // options.batch_size)
    workers = _fastest_workers(data, options, steps)
    ways = {
        "usual": _usual_steps(data, options, workers, tuned=False),
        "tuned": _usual_steps(data, options, workers, tuned=True),
        "lantern": _lantern_steps(run),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, each in ways.items():
            found[name].append(options.batch_size * steps / _seconds(each, steps))
    machine = this_machine(torch.device("cpu"))
    print(f"{machine.cpu}, {machine.cores} cores, torch {machine.torch}, {torch.get_num_threads()} threads")
    print(f"{options.arch}, batches of {options.batch_size}, {steps} steps a round, {rounds} rounds")
    print(f"workers of the loaders: {workers}; lantern trains in {run.precision}")
    for name, speeds in found.items():
        ratios = [own / usual for own, usual in zip(speeds, found["usual"], strict=True)]
        print(
            f"{name:8} {statistics.median(speeds):7.0f} images/s ({min(speeds):.0f} to {max(speeds):.0f}), "
            f"{statistics.median(ratios):.2f} times the usual loop"
        )


def _run(options: FashionOptions) -> tuple[Run, FashionOptions]:
    task, options = prepare(options, Progress(silent=True))
    run = Run(task, options, Group())
    run.prepare()
    return run, options


def _lantern_steps(run: Run) -> Iterator[None]:
    # The same epoch again and again: its steps are what is timed, not the schedule's end.
    for indices_N in chain.from_iterable(repeat(run.batches())):
        run.take_step(indices_N)
        yield


def _usual_data(directory: Path, options: FashionOptions) -> FashionMNIST:
    """Lay the files out as torchvision wants them."""
    raw = directory / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in fashion_mnist.read_all(fashion_mnist.locate(options.data)).items():
        (raw / name).write_bytes(content)
    crop = RandomCrop(fashion_mnist.SIZE, padding=options.shift_pixels)
    transform = Compose([crop, RandomHorizontalFlip(), ToTensor(), Normalize(MEAN, STD)])
    return FashionMNIST(str(directory), transform=transform)


def _usual_steps(data: FashionMNIST, options: FashionOptions, workers: int, *, tuned: bool) -> Generator[None]:
    seed_here(options.seed, "weights")
    network = image_network((1, *fashion_mnist.SIZE), len(fashion_mnist.LABELS), options).train()
    layout = torch.channels_last if tuned else torch.contiguous_format
    network = network.to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
    loader = DataLoader(
        data,
        batch_size=options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    for images_NCHW, labels_N in chain.from_iterable(repeat(loader)):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=tuned):
            logits_NK = network(images_NCHW.contiguous(memory_format=layout))
            loss = F.cross_entropy(logits_NK, labels_N, label_smoothing=options.label_smoothing)
        loss.backward()
        optimizer.step()
        loss.item()
        yield


def _fastest_workers(data: FashionMNIST, options: FashionOptions, steps: int) -> int:
    times_s = {}
    for workers in WORKERS:
        with closing(_usual_steps(data, options, workers, tuned=False)) as each:
            times_s[workers] = _seconds(each, steps)
    return min(times_s, key=lambda workers: times_s[workers])


def _seconds(steps_taken: Iterator[None], steps: int) -> float:
    _advance(steps_taken, WARM_STEPS)
    start_s = time.perf_counter()
    _advance(steps_taken, steps)
    return time.perf_counter() - start_s


def _advance(steps_taken: Iterator[None], steps: int) -> None:
    for _ in islice(steps_taken, steps):
        pass


if __name__ == "__main__":
    main()
