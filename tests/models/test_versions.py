from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from models.versions import first_version_after, version_order

days = st.dates(datetime(2000, 1, 1).date(), datetime(2099, 12, 31).date())
versions = st.builds(lambda day, number: f"{day:%Y%m%d}.{number}", days, st.integers(1, 10_000))


@given(st.lists(versions, max_size=6), days)
def test_the_next_version_sorts_after_all_before_even_if_the_clock_goes_back(
    existing: list[str], today: Any
) -> None:
    now = datetime(today.year, today.month, today.day, tzinfo=UTC)
    fresh = first_version_after(existing, now)
    assert all(version_order(version) < version_order(fresh) for version in existing)


def test_versions_count_up_within_a_day_and_restart_on_the_next() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert first_version_after([], now) == "20261123.1"
    assert first_version_after(["20261123.9", "20261123.10"], now) == "20261123.11"
    assert first_version_after(["20261122.7"], now) == "20261123.1"
