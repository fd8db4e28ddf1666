"""A run's results as Markdown tables, and as plots of throughput against latency."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.load import Outcome
from benchmarks.results import Absence, Limit, Results

# Of a deadline of 500 ms that much may be the client's.
CLIENT_LATE_MS = 50.0

Row = Sequence[str]
NOBODY: Mapping[str, str] = {}


def markdown(results: Results) -> str:
    """Every workload's tables, after a line on the machine."""
    machine = results.machine
    head = (
        f"{machine.cpu}, {machine.cores} cores, torch {machine.torch}, Python {machine.python}, "
        f"commit {machine.commit}, {results.started_at:%Y-%m-%d}."
    )
    told = [point.workload for point in results.points] + [absence.workload for absence in results.absences]
    workloads = list(dict.fromkeys(workload for workload in told if workload is not None))
    everywhere = _absences([absence for absence in results.absences if absence.workload is None])
    head = "\n\n".join([head, *everywhere])
    return "\n\n".join([head, *(_workload(results, workload) for workload in workloads)]) + "\n"


def plot(results: Results, directory: Path) -> list[Path]:
    """Draw throughput against the 99th percentile for each workload, a line a server."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    drawn = []
    # Only known latencies have a place on axes that are logarithmic.
    known_of = [point.workload for point in results.points if point.model is None and _p99(point.outcome)]
    for workload in dict.fromkeys(known_of):
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        for server in _servers(results, workload):
            points = [
                (results.median(outcomes, _per_s), results.median(outcomes, _p99))
                for connections in _connections(results, workload)
                if (outcomes := results.closed(workload, server, connections))
            ]
            known = [(x, y) for x, y in points if x is not None and y is not None]
            axes.plot([x for x, _ in known], [y for _, y in known], marker="o", label=server)
        axes.set(
            xlabel="requests a second", ylabel="99th percentile, ms", yscale="log", xscale="log", title=workload
        )
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
        figure.tight_layout()
        path = directory / f"{workload}.png"
        figure.savefig(path, dpi=120)
        pyplot.close(figure)
        drawn.append(path)
    return drawn


def _workload(results: Results, workload: str) -> str:
    parts = [f"## {workload}", _closed(results, workload)]
    parts += [_closed_of(results, workload, model) for model in _models(results, workload)]
    if any(point.share is not None for point in results.points if point.workload == workload):
        parts.append(_open(results, workload))
    parts += [_starts(results, workload), _limits(results, workload)]
    parts += _absences([absence for absence in results.absences if absence.workload == workload])
    return "\n\n".join(part for part in parts if part)


def _closed(results: Results, workload: str) -> str:
    models = _models(results, workload)
    title = "Closed loop: requests a second (p50/p99 in ms)."
    if models:
        title = f"Closed loop, connections shared evenly among {' and '.join(models)}: requests a second in all."
    absent = {absence.server: "failed" if absence.failed else "cannot" for absence in results.absent(workload)}
    return f"{title}\n\n{_closed_table(results, workload, None, absent)}"


def _closed_of(results: Results, workload: str, model: str) -> str:
    title = f"Those to {model}: requests a second (p50/p99 in ms)."
    return f"{title}\n\n{_closed_table(results, workload, model, NOBODY)}"


def _closed_table(results: Results, workload: str, model: str | None, absent: Mapping[str, str]) -> str:
    columns = {
        f"{count} connections": partial(results.closed, workload, connections=count, model=model)
        for count in _connections(results, workload)
    }

    def cell(outcomes: Sequence[Outcome]) -> str:
        per_s, p50, p99 = (results.median(outcomes, figure) for figure in (_per_s, _p50, _p99))
        latency = "" if outcomes and p50 is None else f" ({_number(p50)}/{_number(p99)})"
        return f"{_number(per_s)}{latency}{_failures(outcomes)}"

    return _by_server([*_servers(results, workload), *sorted(absent)], columns, cell, absent)


def _open(results: Results, workload: str) -> str:
    shares = sorted({point.share for point in results.points if point.workload == workload and point.share})
    columns = {f"{share:.0%} of capacity": partial(results.open, workload, share=share) for share in shares}

    def cell(outcomes: Sequence[Outcome]) -> str:
        good, asked, p99 = (results.median(outcomes, figure) for figure in (_goodput_per_s, _begun_per_s, _p99))
        refused_per_s, refused_p99 = (
            results.median(outcomes, figure) for figure in (_refused_per_s, _refused_p99)
        )
        refused = f", {_number(refused_per_s)} refused ({_number(refused_p99)})" if refused_per_s else ""
        return f"{_number(good)} of {_number(asked)} ({_number(p99)}){refused}{_lost(outcomes)}{_late(outcomes)}"

    title = (
        "Open loop: good answers within the deadline a second, of how many were asked (p99 of good answers in "
        "ms), and refusals with 503 a second (likewise)."
    )
    return f"{title}\n\n{_by_server(_servers(results, workload), columns, cell)}"


def _by_server(
    servers: Sequence[str],
    columns: Mapping[str, Callable[[str], Sequence[Outcome]]],
    cell: Callable[[Sequence[Outcome]], str],
    absent: Mapping[str, str] = NOBODY,
) -> str:
    """Tabulate a row for each server that has outcomes or is absent: what `cell` says of those of each column."""
    rows = []
    for server in dict.fromkeys(servers):
        found = [outcomes_of(server) for outcomes_of in columns.values()]
        if server in absent:
            rows.append([f"{server} ({absent[server]})", *map(cell, found)])
        elif any(found):
            rows.append([server, *map(cell, found)])
    return _table(["server", *columns], rows)


def _absences(absences: Sequence[Absence]) -> list[str]:
    """Tell each one, with the last lines of the server's log."""
    return [f"{_reason(absence)}\n\n{_block(absence.log)}".rstrip() for absence in absences]


def _reason(absence: Absence) -> str:
    if not absence.failed:
        return f"{absence.server} is not made for it: {absence.why}"
    when = "" if absence.round is None else f" in round {absence.round + 1}"
    return f"{absence.server} failed{when}: {absence.why}"


def _block(log: str) -> str:
    """Indent, which is code in Markdown whatever it holds."""
    return "\n".join(f"    {line}" for line in log.splitlines())


def _starts(results: Results, workload: str) -> str:
    rows = []
    for server in _servers(results, workload):
        mine = [start for start in results.starts if (start.workload, start.server) == (workload, server)]
        if mine:
            ready_s = sorted(start.ready_s for start in mine)[len(mine) // 2]
            resident = max(start.memory.resident_mb for start in mine)
            proportional = max(start.memory.proportional_mb for start in mine)
            rows.append([server, f"{ready_s:.1f}", f"{resident:.0f}", f"{proportional:.0f}"])
    return _table(["server", "first answer, s", "resident, MB", "shared counted once, MB"], rows)


def _limits(results: Results, workload: str) -> str:
    mine = [limit for limit in results.limits if limit.workload == workload]
    if not mine:
        return ""
    head = ["limits, items a second", "the model alone", "at its fastest", "decoding alone", "both"]
    models = dict.fromkeys(limit.model for limit in mine)
    of_each = ([limit for limit in mine if limit.model == model] for model in models)
    return _table(head, [_limit(of_one, form) for of_one in of_each for form in of_one[0].model_per_s])


def _limit(limits: Sequence[Limit], form: str) -> Row:
    """Tell the limits of a form of one model, in the median round."""
    limit = sorted(limits, key=lambda each: each.combined_per_s(form))[len(limits) // 2]
    name = form if limit.model is None else f"{limit.model}, {form}"
    way, model_per_s = max(limit.model_per_s[form].items(), key=lambda each: each[1])
    decode_per_s = max(limit.decode_per_s.values())
    return [name, f"{model_per_s:.0f}", way, f"{decode_per_s:.0f}", f"{limit.combined_per_s(form):.0f}"]


def _models(results: Results, workload: str) -> list[str]:
    """Those of a mix; none of a workload with only one."""
    models = (point.model for point in results.points if point.workload == workload)
    return list(dict.fromkeys(model for model in models if model is not None))


def _servers(results: Results, workload: str) -> list[str]:
    return list(dict.fromkeys(point.server for point in results.points if point.workload == workload))


def _connections(results: Results, workload: str) -> list[int]:
    return sorted(
        {
            point.pattern.connections
            for point in results.points
            if point.workload == workload and point.pattern.rate is None
        }
    )


def _per_s(outcome: Outcome) -> float:
    return outcome.per_s


def _goodput_per_s(outcome: Outcome) -> float:
    return outcome.goodput_per_s


def _begun_per_s(outcome: Outcome) -> float:
    return outcome.begun / outcome.seconds


def _p50(outcome: Outcome) -> float | None:
    return outcome.accepted_ms.p50


def _p99(outcome: Outcome) -> float | None:
    return outcome.accepted_ms.p99


def _refused_per_s(outcome: Outcome) -> float:
    return outcome.refused / outcome.seconds


def _refused_p99(outcome: Outcome) -> float | None:
    return outcome.refused_ms.p99


def _failures(outcomes: Iterable[Outcome]) -> str:
    failed = sum(outcome.refused + outcome.failed + outcome.broken for outcome in outcomes)
    return f", {failed} failed" if failed else ""


def _lost(outcomes: Iterable[Outcome]) -> str:
    lost = sum(outcome.broken + outcome.unanswered for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    return (f", {failed} failed" if failed else "") + (f", {lost} never answered" if lost else "")


def _late(outcomes: Iterable[Outcome]) -> str:
    """Tell where requests waited for the client, which is no fault of the server's but of a slow client's."""
    late_ms = max((outcome.begun_late_ms.p99 or 0.0 for outcome in outcomes), default=0.0)
    return f", begun up to {_number(late_ms)} ms late" if late_ms > CLIENT_LATE_MS else ""


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
