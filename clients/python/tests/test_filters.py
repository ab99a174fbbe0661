"""The form of filters. `test_retrieval` holds what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any, cast

import pytest

from ragward import F, Filter


def both(left: Any, right: Any) -> Any:
    return left and right


def denied(one: Any) -> Any:
    return not one


def either(left: Any, right: Any) -> Any:
    return left or right


AREA = {"oneOf": {"key": "area", "values": [{"stringValue": "people"}]}}
YEAR = {"range": {"key": "year", "low": 2024.0}}


def test_filters_are_written_as_the_server_reads_them() -> None:
    area, year = F("area") == "people", F("year") >= 2024
    rows: list[tuple[str, Filter, dict[str, Any]]] = [
        ("and", area & year, {"allOf": {"filters": [AREA, YEAR]}}),
        ("or", area | year, {"anyOf": {"filters": [AREA, YEAR]}}),
        ("not", ~area, {"not": AREA}),
        ("a chain stays flat", area & year & area & year, {"allOf": {"filters": [AREA, YEAR, AREA, YEAR]}}),
        (
            "a chain of both kinds",
            area & (year | area),
            {"allOf": {"filters": [AREA, {"anyOf": {"filters": [YEAR, AREA]}}]}},
        ),
        ("truth is no number", F("a") == True, {"oneOf": {"key": "a", "values": [{"boolValue": True}]}}),  # noqa: E712
        (
            "a large whole number",
            F("a") == 2**63 - 1,
            {"oneOf": {"key": "a", "values": [{"intValue": "9223372036854775807"}]}},
        ),
        ("more than", F("a") > 1, {"range": {"key": "a", "low": math.nextafter(1.0, 2.0)}}),
        ("less than", F("a") < 1, {"range": {"key": "a", "high": math.nextafter(1.0, 0.0)}}),
        ("between", F("a").between(1, 2.5), {"range": {"key": "a", "low": 1.0, "high": 2.5}}),
        ("contains", F("a").contains("x"), {"oneOf": {"key": "a", "values": [{"stringValue": "x"}]}}),
        (
            "days",
            F("a").during(date(2026, 1, 1), date(2026, 12, 31)),
            {
                "timeRange": {
                    "key": "a",
                    "earliest": "2026-01-01T00:00:00Z",
                    "latest": "2026-12-31T23:59:59.999999Z",
                }
            },
        ),
        (
            "a moment",
            F("a").during(latest=datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
            {"timeRange": {"key": "a", "latest": "2026-01-01T00:00:00Z"}},
        ),
        ("one of none", F("a").one_of(), {"anyOf": {"filters": []}}),
    ]
    for row, filter_, wire in rows:
        assert filter_.wire == wire, row


def test_what_would_be_another_filter_is_refused() -> None:
    area, year = F("area") == "people", F("year") >= 2024
    rows: list[tuple[str, Callable[[], object]]] = [
        ("`and` would drop the first", lambda: both(area, year)),
        ("`or` would drop the second", lambda: either(area, year)),
        ("`not` would be false", lambda: denied(area)),
        ("a chain of comparisons", lambda: 1 < F("year") < 3),
        ("a text has no order", lambda: F("area") >= cast("float", "people")),
        ("truth has no order", lambda: F("area") >= True),
        ("not a number", lambda: F("year") >= math.nan),
        ("infinite", lambda: F("year") >= math.inf),
        ("more than the largest", lambda: F("year") > 1.7976931348623157e308),
        ("a whole number that is rounded", lambda: F("year") >= 2**53 + 1),
        ("a whole number that is too large", lambda: F("year") == 2**63),
        ("a whole number beyond all floats", lambda: F("year") >= 10**400),
        ("a time without a zone", lambda: F("day").during(datetime(2026, 1, 1))),
        ("a list is no value", lambda: F("area") == cast("str", ["people"])),
        ("nothing is no value", lambda: F("area") == cast("str", None)),
        ("a filter and a truth", lambda: area & cast("Filter", True)),
        ("a place in a set", lambda: {F("area")}),
    ]
    for row, make in rows:
        with pytest.raises((TypeError, ValueError)):
            make()
        assert row
