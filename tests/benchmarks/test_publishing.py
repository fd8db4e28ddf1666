import pytest

from benchmarks.load import Latencies, Outcome
from benchmarks.publishing import Slice, lateness, losses


def slice_(
    p99_ms: float, *, publishing: bool = False, stolen: float = 0.0, refused: int = 0, broken: int = 0
) -> Slice:
    good = 100 - refused - broken
    outcome = Outcome(
        seconds=10,
        begun=100,
        in_time=good,
        broken=broken,
        unanswered=0,
        connects=1,
        advised=refused,
        statuses={200: good} | ({503: refused} if refused else {}),
        accepted_ms=Latencies(count=good, p99=p99_ms if good else None),
        refused_ms=Latencies(count=refused),
        begun_late_ms=Latencies(count=100),
        samples={},
    )
    return Slice(publishing=publishing, stolen=stolen, outcome=outcome)


def test_what_is_lost_is_counted_and_told_whatever_the_machine_did() -> None:
    slices = [
        slice_(10, refused=1),
        slice_(10, publishing=True, refused=2, broken=3),
        slice_(10, stolen=0.5, broken=1),
    ]
    assert losses(slices) == "7 of 300 requests lost ({200: 293, 503: 3}, 4 without an answer)"
    assert losses([slice_(10)]) == "0 of 100 requests lost"


def test_medians_of_publishing_and_of_peace_are_compared() -> None:
    peace = [slice_(p99_ms) for p99_ms in (10, 900, 12)]
    publishing = [slice_(p99_ms, publishing=True) for p99_ms in (18, 17, 900)]
    assert lateness([*peace, *publishing]).startswith(
        "p99 18.0 ms while publishing (3 slices) / 12.0 ms in peace (3): 1.50; "
    )


def test_slices_in_which_others_had_the_processors_are_told_apart() -> None:
    slices = [slice_(10), slice_(30, publishing=True), slice_(90, publishing=True, stolen=0.1)]
    whole, everything = lateness(slices).split("; ")
    assert whole.endswith("(1): 3.00")
    assert everything.endswith("60.0 ms while publishing (2 slices) / 10.0 ms in peace (1): 6.00")


def test_without_slices_of_both_kinds_there_is_no_ratio() -> None:
    assert lateness([slice_(10)]).startswith("no ratio, of 1 slices in peace and 0 while publishing")


def test_a_slice_without_an_answer_has_no_percentile() -> None:
    with pytest.raises(SystemExit, match="no request was answered"):
        lateness([slice_(10, refused=100)])
