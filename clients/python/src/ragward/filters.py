"""Filters on metadata: `(F("area") == "people") & (F("year") >= 2024)`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from typing import Any, NoReturn, TypeAlias, cast

#: A single value of metadata. The server keeps whole numbers of 64 bits apart from other numbers.
MetadataScalar: TypeAlias = str | int | float | bool
#: A value of metadata, or a list of them. A condition holds for a list if it holds for one of its values.
MetadataValue: TypeAlias = MetadataScalar | Sequence[MetadataScalar]

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on the metadata of chunks. Make one with `F`, and combine them with `&`, `|` and `~`."""

    #: The filter as the server reads it.
    wire: Mapping[str, Any]

    def __and__(self, other: object) -> Filter:
        return _joined("allOf", self, other) if isinstance(other, Filter) else NotImplemented

    def __or__(self, other: object) -> Filter:
        return _joined("anyOf", self, other) if isinstance(other, Filter) else NotImplemented

    def __invert__(self) -> Filter:
        return Filter({"not": self.wire})

    def __bool__(self) -> NoReturn:
        # `a and b` would be `b` alone, and so a wider filter than the program says.
        raise TypeError(
            "combine filters with `&`, `|` and `~`, each condition in parentheses; not with `and`, `or`, `not`"
        )


class F:
    """The value under a key of the metadata. Its comparisons are filters.

    A chunk without the key matches no comparison but `!=`.
    """

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __eq__(self, value: MetadataScalar) -> Filter:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.one_of(value)

    def __ne__(self, value: MetadataScalar) -> Filter:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return ~self.one_of(value)

    # An object whose comparisons make filters cannot be looked up by its value.
    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def one_of(self, *values: MetadataScalar) -> Filter:
        """Match chunks that have one of these values. Without values, no chunk matches."""
        if not values:
            return Filter({"anyOf": {"filters": []}})
        return Filter({"oneOf": {"key": self._key, "values": [scalar_wire(value) for value in values]}})

    def contains(self, value: MetadataScalar) -> Filter:
        """Match lists that hold this value, and the value itself."""
        return self.one_of(value)

    def during(self, earliest: date | None = None, latest: date | None = None) -> Filter:
        """Match texts that are a date or a time from `earliest` to `latest`, both included.

        A `datetime` needs a time zone. A `date` is a day in UTC, from its first moment to its last.
        """
        ends: dict[str, Any] = {}
        if earliest is not None:
            ends["earliest"] = _moment(earliest, time.min)
        if latest is not None:
            ends["latest"] = _moment(latest, time.max)
        return Filter({"timeRange": {"key": self._key, **ends}})

    def between(self, low: float, high: float) -> Filter:
        """Match numbers from `low` to `high`, both included."""
        return self._range(low=low, high=high)

    def __ge__(self, low: float) -> Filter:
        return self._range(low=low)

    def __le__(self, high: float) -> Filter:
        return self._range(high=high)

    def __gt__(self, low: float) -> Filter:
        """Match larger numbers. The server's ranges include their ends, so this range begins with the next larger float."""
        return self._range(low=math.nextafter(_number(low), math.inf))

    def __lt__(self, high: float) -> Filter:
        """Match smaller numbers. This range ends with the next smaller float."""
        return self._range(high=math.nextafter(_number(high), -math.inf))

    def __repr__(self) -> str:
        return f"F({self._key!r})"

    def _range(self, **ends: float) -> Filter:
        return Filter({"range": {"key": self._key, **{name: _number(end) for name, end in ends.items()}}})


def value_wire(value: object) -> dict[str, Any]:
    """Return a value of metadata as the server reads it."""
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[object]", value)
        return {"listValue": {"values": [scalar_wire(item) for item in items]}}
    return scalar_wire(value)


def scalar_wire(value: object) -> dict[str, Any]:
    """Return a single value of metadata as the server reads it."""
    # In Python, a truth value is an `int`, too.
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise ValueError(f"the whole number {value} has more than 64 bits")
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": _number(value)}
    if isinstance(value, str):
        return {"stringValue": value}
    raise TypeError(f"metadata holds texts, numbers, truth values and lists of these, not `{type(value).__name__}`")


def metadata_wire(metadata: Mapping[str, MetadataValue]) -> dict[str, Any]:
    """Return metadata as the server reads it."""
    return {key: value_wire(value) for key, value in metadata.items()}


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"only numbers have an order, not `{type(value).__name__}`")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("a number in metadata or a filter must be finite")
    if number != value:
        # The range of the rounded number would be another one.
        raise ValueError(f"the whole number {value} is no float, as the ends of ranges are")
    return number


def _moment(moment: date, of_day: time) -> str:
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, of_day, timezone.utc)
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone is no moment; give it one, such as `timezone.utc`")
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def _joined(kind: str, left: Filter, right: Filter) -> Filter:
    parts: list[Mapping[str, Any]] = []
    for filter_ in (left, right):
        # `a & b & c` is one list: the server takes 8 levels.
        inner = filter_.wire.get(kind)
        parts.extend(inner["filters"] if inner else [filter_.wire])
    return Filter({kind: {"filters": parts}})
