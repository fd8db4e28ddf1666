"""The names of versions: a day, and a number within it."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

VersionName = Annotated[str, Field(pattern=r"^\d{8}\.[1-9]\d{0,5}$")]


def version_order(version: str) -> tuple[str, int]:
    """Sort key of a version name: by day, then by number."""
    day, _, number = version.partition(".")
    return day, int(number)


def first_version_after(versions: list[str], now: datetime) -> str:
    """Name the next version: today's date and one more than the largest number it has.

    A clock set back never yields a version that sorts before one already there.
    """
    day = f"{now:%Y%m%d}"
    if versions:
        newest_day, newest_number = version_order(max(versions, key=version_order))
        if newest_day >= day:
            return f"{newest_day}.{newest_number + 1}"
    return f"{day}.1"
