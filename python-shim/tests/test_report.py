from __future__ import annotations

import json
import select
from pathlib import Path
from typing import Any

import pytest

from petiole import _output, _report
from petiole._report import Report

TRACE = "Traceback (most recent call last):\n" + '  File "é.py", line 1\n' * 500 + "Error: end\n"


class OddlyNamedError(Exception):
    pass


OddlyNamedError.__qualname__ = "Ünnamed" * 500
OddlyNamedError.__module__ = "möd" * 1000


def raised(error: BaseException, trace: str | None = TRACE) -> dict[str, Any]:
    report = Report("FAILURE", {"exception": _report.exception_document(error)}, trace)
    encoded = _report.encode(report)
    assert encoded.state == "FAILURE"
    assert encoded.lines == []
    assert len(encoded.file) <= _report.FILE_BYTES_MAX
    document: dict[str, Any] = json.loads(encoded.file.decode("ascii"))
    return document


@pytest.mark.parametrize("trace", [None, "", "short\n", TRACE, "\0" * 9000, '\\"' * 9000])
@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        ValueError("x"),
        ValueError("x" * 10_000),
        ValueError("\U0001f600" * 10_000),
        ValueError(*range(10_000)),
        ValueError(*["y" * 500] * 100),
        ValueError({"key": ["z" * 100] * 1000}),
        ValueError(b"\xff" * 5000),
        OddlyNamedError("x" * 5000),
    ],
    ids=["none", "short", "long", "emoji", "many", "many long", "deep", "bytes", "names"],
)
def test_every_failure_fits(error: BaseException, trace: str | None) -> None:
    document = raised(error, trace)
    if trace:
        assert document["traceback"]
    else:
        assert document["traceback"] == trace
    assert document["exception"]["exc_type"].startswith(type(error).__qualname__[:200])


def test_cut_traceback_uses_the_room_that_there_is() -> None:
    report = Report("FAILURE", {"exception": _report.exception_document(ValueError("x"))}, TRACE)
    assert len(_report.encode(report).file) > _report.FILE_BYTES_MAX - 10


def test_half_a_surrogate_pair_does_not_reach_the_traceback() -> None:
    try:
        raise ValueError("\udc80")
    except ValueError as error:
        text = _report.format_trace(error, error.__traceback__)
    assert text.endswith("ValueError: \\udc80\n")


def test_lines_are_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another thread writes meanwhile stands between two of them."""
    written: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(bytes(data))
        return len(data)

    encoded = _report.encode(_report.success("x" * 100_000))
    monkeypatch.setattr(_output.os, "write", write)
    _report.write(encoded, tmp_path / "report")
    assert written == [b"\n", *encoded.lines, encoded.file]
    assert max(map(len, encoded.lines)) <= select.PIPE_BUF


def test_result_of_the_json_dialect() -> None:
    encoded = _report.encode(_report.success({"nan": float("nan"), "b": b"\xff"}))
    assert b'{"nan": NaN, "b": {"__type__": "base64", "__value__": "/w=="}}' in encoded.file
