"""How a candidate compares with the current version, on the requests that both were asked."""

from collections.abc import Mapping, Sequence

from app.metrics import SHADOW_DISTANCE, SHADOW_ITEMS, SHADOW_SECONDS
from app.processes.merging import Figures
from app.schemas import ComparedInfo

RESULTS = ("agreed", "differed", "failed", "skipped")


def compare(figures: Figures, name: str, version: str) -> ComparedInfo | None:
    """Sum up what was measured; None if nothing was.

    Args:
        figures: The service's, of all its worker processes.
        name: The model's.
        version: The candidate.
    """
    about = {"model": name, "version": version}
    series = f"{SHADOW_ITEMS}_total"
    counts = {result: int(_sum(figures, series, about | {"result": result})) for result in RESULTS}
    if not any(counts.values()):
        return None
    answered = counts["agreed"] + counts["differed"]
    return ComparedInfo(
        **counts,
        agreement=counts["agreed"] / answered if answered else None,
        mean_score_distance=_mean(figures, SHADOW_DISTANCE, about),
        mean_current_ms=_in_ms(_mean(figures, SHADOW_SECONDS, about | {"of": "current"})),
        mean_candidate_ms=_in_ms(_mean(figures, SHADOW_SECONDS, about | {"of": "candidate"})),
    )


def _mean(figures: Figures, series: str, labels: Mapping[str, str]) -> float | None:
    count = _sum(figures, f"{series}_count", labels)
    return _sum(figures, f"{series}_sum", labels) / count if count else None


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _sum(figures: Figures, sample: str, labels: Mapping[str, str]) -> float:
    return sum(value for name, found, value in _samples(figures) if name == sample and found == labels)


def _samples(figures: Figures) -> Sequence[tuple[str, Mapping[str, str], float]]:
    return [(name, labels, value) for family in figures for name, labels, value in family["samples"]]
