"""How a candidate compares with the current version, on the requests that both were asked."""

from collections.abc import Mapping

from app.metrics import SHADOW_DISTANCE, SHADOW_ITEMS, SHADOW_SECONDS
from app.processes.merging import Figures
from app.schemas import ComparedInfo

Values = Mapping[tuple[str, str | None], float]

RESULTS = ("agreed", "differed", "failed", "skipped")


def compare(figures: Figures, name: str, version: str) -> ComparedInfo | None:
    """Sum up what was measured; None if nothing was.

    Args:
        figures: The service's, of all its worker processes.
        name: The model's.
        version: The candidate.
    """
    # Of each series that is about it, by what tells it from the others of its name.
    values = {
        (sample, labels.get("result") or labels.get("of")): value
        for family in figures
        for sample, labels, value in family["samples"]
        if (labels.get("model"), labels.get("version")) == (name, version)
    }
    counts = {result: int(values.get((f"{SHADOW_ITEMS}_total", result), 0)) for result in RESULTS}
    if not any(counts.values()):
        return None
    answered = counts["agreed"] + counts["differed"]
    return ComparedInfo(
        **counts,
        agreement=counts["agreed"] / answered if answered else None,
        mean_score_distance=_mean(values, SHADOW_DISTANCE, None),
        mean_current_ms=_in_ms(_mean(values, SHADOW_SECONDS, "current")),
        mean_candidate_ms=_in_ms(_mean(values, SHADOW_SECONDS, "candidate")),
    )


def _mean(values: Values, series: str, of: str | None) -> float | None:
    count = values.get((f"{series}_count", of), 0.0)
    return values[f"{series}_sum", of] / count if count else None


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds
