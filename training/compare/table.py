"""A comparison as Markdown, for a person."""

import json
from collections.abc import Sequence

from training.compare.comparison import Combination, Comparison, Result
from training.machine import Machine

WARNING = (
    "Rows are ordered by the validation metric: choose by it. **The test metric must not be used for choosing:** "
    "it says what the chosen one is worth on examples that had no part in the choice."
)


def markdown(comparison: Comparison) -> str:
    """Return the table, and what it was measured on."""
    done = "" if comparison.is_whole else f" ({len(comparison.combinations)} of {comparison.planned} so far)"
    parts = [f"# Comparison: {comparison.recipe}{done}", WARNING]
    if finished := comparison.finished():
        parts += [_finished(finished), "![validation metric against seconds](curves.png)"]
    if failures := comparison.failures():
        parts += ["## Failed", _failed(failures)]
    parts += ["## How it was measured", _facts(comparison)]
    return "\n\n".join(parts) + "\n"


def _finished(finished: Sequence[tuple[Combination, Result]]) -> str:
    first = finished[0][1]
    test = next(iter(first.test))
    head = [
        "architecture", "optimizer", f"validation {first.metric}", test.replace("_", " "), "training, s", "epochs",
        "parameters", "1 item, ms", "32 items, ms",
    ]  # fmt: skip
    rows = [
        [
            combination.arch,
            combination.optimizer,
            f"{result.validation:.2%}",
            f"{result.test[test]:.2%}",
            f"{result.training_s:.1f}",
            f"{result.epochs:.1f}",
            f"{result.parameters:,}",
            f"{result.latency_1_ms:.2f}",
            f"{result.latency_32_ms:.2f}",
        ]
        for combination, result in finished
    ]
    return _table(head, rows, names=2)


def _failed(failures: Sequence[Combination]) -> str:
    rows = [[each.arch, each.optimizer, (each.failed or "").replace("|", "\\|")] for each in failures]
    return _table(["architecture", "optimizer", "reason"], rows, names=3)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> str:
    """Lay out a table, padded to be read as it is too; after `names` columns come figures."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = ["-" * width if column < names else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    cells = [
        [
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (head, rule, *rows)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _facts(comparison: Comparison) -> str:
    results = [result for _, result in comparison.finished()]
    facts = {
        "budget": f"{comparison.budget_s:g} s of training for each combination, validation included",
        "seed": str(comparison.seed),
        "options": f"`{json.dumps(comparison.options)}`" if comparison.options else "the recipe's own",
        "data": ", ".join(sorted({f"sha256 `{result.data_sha256}`" for result in results})),
        "examples": "; ".join(sorted({_sizes(result) for result in results})),
        **_machine(comparison.machine),
        "latency": "median through the exported file on that device, frozen and warm, without decoding",
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items() if fact)


def _sizes(result: Result) -> str:
    return ", ".join(f"{count:,} {part.replace('_', ' ')}" for part, count in result.examples.items())


def _machine(machine: Machine) -> dict[str, str]:
    return {
        "machine": f"{machine.cpu}, {machine.cores} cores; torch threads: {machine.threads}",
        "device": machine.device,
        "software": f"torch {machine.torch}, Python {machine.python}",
        "commit": machine.commit or "",
    }
