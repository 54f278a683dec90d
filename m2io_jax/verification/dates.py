"""Dates with the name of a month, and their comparison: January 5, 2024; 5 Jan 2024; 2024年1月5日."""

import re
from dataclasses import dataclass

_MONTHS = "january february march april may june july august september october november december".split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTH_NUMBERS = {name: number for number, name in enumerate(_MONTHS, 1)}
_MONTH_NUMBERS |= {name[:3]: number for name, number in _MONTH_NUMBERS.items()} | {"sept": 9}
# Names of days and months by their abbreviations.
FULL_NAMES = {name[:3]: name for name in _DAYS + _MONTHS} | {
    "sept": "september",
    "tues": "tuesday",
    "thurs": "thursday",
}

_MONTH = r"(?P<month>[a-z]{3,9})\.?"
_DAY = r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>[0-9]{4})"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_MONTH} {_DAY}(?:,? {_YEAR})?",
        rf"(?:the )?{_DAY}(?: of)? {_MONTH}(?:,? {_YEAR})?",
        rf"{_MONTH},? {_YEAR}(?P<day>)",
        rf"(?:{_YEAR}年)?(?P<month>[0-9]{{1,2}})月(?P<day>[0-9]{{1,2}})[日号]",
    )
)


@dataclass(frozen=True)
class Date:
    """A date; None for what is not written: the year of January 5, the day of January 2024."""

    year: int | None
    month: int
    day: int | None


def read_date(text: str) -> Date | None:
    """Read a date with a month's name, or with Chinese characters; None for all other text."""
    for pattern in _DATES:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        name = match["month"].casefold()
        month = int(name) if name.isdecimal() else _MONTH_NUMBERS.get(name)
        if month is not None and 1 <= month <= len(_MONTHS):
            return Date(*(int(part) if part else None for part in (match["year"], str(month), match["day"])))
    return None


def same_date(one: Date, other: Date) -> bool | None:
    """Return whether two dates are the same; None where only one of them has a year or a day."""
    pairs = ((one.year, other.year), (one.month, other.month), (one.day, other.day))
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        return False
    return True if one == other else None


def same_numeric_date(date: Date, numbers: tuple[int, ...]) -> bool | None:
    """Return whether 2024-01-05, 1/5/2024 or 5/1/2024 is a date; None where the day could also be the month."""
    if len(numbers) != 3:
        return False
    first, second, third = numbers
    orders = ((first, second, third),) if first > 31 else ((third, first, second), (third, second, first))
    possible = [(year, month, day) for year, month, day in orders if month <= 12 and day <= 31]
    if (date.year, date.month, date.day) not in possible:
        return False
    return True if len(set(possible)) == 1 else None
