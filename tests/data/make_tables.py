#!/usr/bin/env python3
"""Write the tables of what Python makes of texts: dumps, iso8601, repr and backoff (.json).

    "$(python3 tests/support/python_env.py newest)" tests/data/make_tables.py

dumps: JSON texts and json.dumps(json.loads(text)). repr: JSON texts and repr(json.loads(text)).
iso8601: texts and the seconds since 1970 that dateutil's isoparse gives (naive is UTC), null when
it refuses them. backoff: countdowns of Celery's get_exponential_backoff_interval. Exits 0.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from celery.utils.time import get_exponential_backoff_interval
from dateutil.parser import isoparse

HERE = Path(__file__).resolve().parent

JSON_TEXTS = (
    "null", "true", "[]", "{}", "[1,2]", '{"a":1,"b":{"c":[]}}', " [ 1 , 2 ] ",
    '"plain"', '"é€"', '"\U0001f600"', r'"\ud83d\ude00"', r'"\u00e9\u0041\/\b\f\n\r\t\"\\"',
    r'"\u007f\u0000\u001f"', '"\x7f"', r'"\ud83d"', r'"\ude00x"', r'"a\ud83db\\u0041"', '""',
    '{"é":"\\/","\\u0041":null}', "0", "-0", "1", "-17", "12345678901234567890123456789",
    "1.0", "-0.0", "0.10", "1e5", "1E+2", "1e-7", "1.5e300", "1e22", "123456789.125e3", "1e400",
    "-1e400", "NaN", "Infinity", "-Infinity", "4.9e-324", "0.1e1", "[1e0,[2.50,\"x\"]]",
)  # fmt: skip

REPR_TEXTS = (
    "null", "[true,false,null]", "{}", "[]", '{"a":[1,2.5,{"b":"c"}]}', '"it\'s"', '"a\\"b"',
    '"both \' and \\""', r'"\n\t\r\\"', r'"\u0000\u001f\u007f"', '"é€\U0001f600"', r'"\u00e9"',
    "1", "-0", "1e5", "1e16", "1.0", "NaN", "Infinity", "-Infinity", "12345678901234567890123",
    r'"\u0080\u009f\u00a0\u00ad"', r'"\u2028\u200b\ufeff"', '["x", ["y"]]',
)  # fmt: skip

DATES = (
    "2030", "2030-01", "203001", "2030-01-02", "20300102", "2030-1-2", "2030-0102", "203001-02",
    "2030-13-01", "2030-00-01", "2030-02-29", "2028-02-29", "2100-02-29", "2000-02-29",
    "2030-01-32", "2030-01-00", "2030-04-31", "0000-01-01", "0001-01-01", "9999-12-31",
    "1969-12-31", "2030-W01", "2030W01", "2030-W01-1", "2030W011", "2030-W017", "2030W01-7",
    "2026-W53-5", "2025-W53-1", "2030-W00", "2030-W54", "2030-W01-0", "2030-W01-8", "2020-W53-7",
    "2030-001", "2030001", "2030-365", "2030-366", "2028-366", "2028366", "2030-000", "2030000",
    "203", "20", "", "2030-", "2030-01-", "-2030-01-01", "+2030-01-01", "today", "1795455552",
    "1795455552.25", "2030/01/02", "2030.01.02", "12030-01-01",
)  # fmt: skip

TIMES = (
    "00", "10", "24", "25", "1", "10:", "10:20", "1020", "10:20:30", "102030", "10:2030", "1020:30",
    "10:20:", "10:60", "10:20:60", "10:20:61", "24:00", "24:00:00", "24:00:00.000", "24:00:01",
    "24:01", "2400", "240000", "10:20:30.5", "10:20:30,5", "10:20:30.123456", "10:20:30.1234567",
    "10:20:30.9999999", "10:20:30.", "10:20:30,", "102030.25", "10:20.5", "10.5", "10:20:30.12a",
    "10:20:30 ", " 10:20:30", "", "10:20:30.000001", "10:20:3", "1:20:30",
)  # fmt: skip

OFFSETS = (
    "", "Z", "z", "+00:00", "-00:00", "+08:00", "+0800", "+08", "-05:30", "-0530", "-05", "+24:00",
    "+23:59", "-23:59", "+08:60", "+8", "+8:00", "+080", "08:00", "+08:0", "+08:00:00", "ZZ", "Z+1",
    " +08:00", "UTC", "+", "-", "+08:", "+08.00",
)  # fmt: skip

WHOLE = (
    "2030-01-02T03:04:05.678901+00:00", "2030-01-02 03:04:05", "2030-01-02t03:04:05",
    "2030-01-02_03:04:05", "2030-01-02  03:04:05", "2030-01-02T", "2030T10:20", "2030-01T10:20",
    "20300102T102030Z", "20300102102030", "2030-W01-1T10:20:30", "2030W011T102030",
    "2030-002T10:20:30+08:00", "2030002T10", "2030-02-28T24:00", "2030-12-31T24:00:00Z",
    "9999-12-31T24:00", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "2030-01-02T03:04:05+08:00\n", "\n2030-01-02T03:04:05", "2030-01-02T03:04:05\x00",
    "2030-01-02T03:04:05é", "\uff12\uff1030-01-02T03:04:05", "2030-01-02Té",
    "2030-01-02T03:04:05.678901+00:00Z", "NaN", "null", "2030-01-02T03:04:05 +00:00",
)  # fmt: skip

# Read by isoparse because it slices without looking how much there is; no client writes these.
ACCIDENTS = ("20300102102030", "2030-01-02T10:20:3", "20300102T+08:00", "2030-01-02T03:04:05+08:0",
             "2030-01-02T03:04+08:0", "2030-01-02T03+08:0")  # fmt: skip


def seconds(text: str) -> float | None:
    """Return what a Celery worker takes `text` for, None when it refuses it."""
    try:
        time = isoparse(text)
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        return (aware - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
    except (ValueError, OverflowError):
        return None


def iso8601_rows() -> list[Any]:
    """Return [text, seconds] rows."""
    texts = [*DATES, *WHOLE]
    texts += [f"2030-01-02T{time}" for time in TIMES]
    texts += [f"20300102T{time}+08:00" for time in TIMES]
    texts += [f"2030-01-02T03:04:05{offset}" for offset in OFFSETS]
    texts += [f"2030-01-02T03:04{offset}" for offset in OFFSETS]
    texts += [f"2030-01-02T03{offset}" for offset in OFFSETS]
    return [[text, seconds(text)] for text in dict.fromkeys(texts) if text not in ACCIDENTS]


def backoff_rows() -> list[Any]:
    """Return [factor, retries, maximum, countdown without jitter] rows."""
    cases = [(factor, tries, most) for factor in (1, 2, 5, 30) for tries in (0, 1, 3, 9, 62, 200)
             for most in (1, 600, 100000)]  # fmt: skip
    return [[*case, get_exponential_backoff_interval(*case)] for case in cases]


def main() -> None:
    """Write the tables."""
    tables = {
        "dumps": [[text, json.dumps(json.loads(text))] for text in JSON_TEXTS],
        "repr": [[text, repr(json.loads(text))] for text in REPR_TEXTS],
        "iso8601": iso8601_rows(),
        "backoff": backoff_rows(),
    }
    for name, rows in tables.items():
        lines = ",\n".join(json.dumps(row) for row in rows)
        (HERE / f"{name}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
