"""The report of a task: what `PETIOLE_RESULT_FILE` and the end of stdout hold.

The file is one JSON object in ASCII, at most 4096 bytes (what Kubernetes keeps of a termination
message), without a newline, written by a single write(2):

    {"v": 1, "state": STATE, PAYLOAD…, "traceback": TEXT or null, "bytes": N, "sha256": HEX}

| STATE              | PAYLOAD                                                                  |
|--------------------|--------------------------------------------------------------------------|
| SUCCESS            | "result": any value                                                      |
| FAILURE            | "exception": E                                                           |
| RETRY              | "exception": E or null, and unless a frame is the next try "countdown":   |
|                    | seconds until the worker sends it                                         |
| IGNORED            | "exception": E, and if the task told a state, the last one as "told":     |
|                    | {"state": …, "meta": …}, which stays as the task's                        |
| REJECTED           | "exception": E, "requeue": true or false                                 |
| any, if there are  | "children": what Celery stores under that name; "frames": what the worker |
|                    | does before it stores the end, in order (`petiole._outbox`)               |

E is Celery's {"exc_type": qualified name, "exc_message": [arguments], "exc_module": module}. Values
are in Kombu's JSON dialect, so NaN and Infinity may occur.

"bytes" and "sha256" (64 lower-case hex digits) are of the JSON text of the payload's first value
exactly as it stands in the file: of `result`, or of `exception`.

A payload that does not fit is moved to the end of stdout. The file then has no payload keys, and
its "bytes" and "sha256" are of the moved text, which is the JSON object of them, {"result": …}. It
stands in stdout as base64, cut into lines

    ::petiole-result SEQUENCE/TOTAL BASE64

each at most 4096 bytes long with its newline, with SEQUENCE from 1 to TOTAL in order, and each
line's BASE64 complete in itself. An empty line may stand before the first one. Each is written by a
single write(2), so that lines which threads of the task print meanwhile stand between them; what
they and handlers of `worker_process_shutdown` print may also follow the last one. A payload over
1 MiB is reported as FAILURE `ResultTooLarge`.

A failure without frames always fits: its traceback loses its middle first, then its arguments
become short texts.
"""

from __future__ import annotations

import base64
import hashlib
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, TypeVar

from celery.exceptions import Retry
from celery.result import ResultBase
from celery.utils.serialization import ensure_serializable
from kombu import serialization
from kombu.utils.encoding import safe_repr

from petiole import _output
from petiole.exceptions import ResultTooLarge

VERSION = 1
FILE_BYTES_MAX = 4096
PAYLOAD_BYTES_MAX = 1024 * 1024
LINE_PREFIX = "::petiole-result"
LINE_RAW_BYTES = 2880
TRACEBACK_BYTES_MIN = 1024
CUT_BYTES_MAX = 64
ARGUMENTS_MAX = 8
NAME_CHARACTERS_MAX = 200

T = TypeVar("T")


@dataclass(frozen=True)
class Report:
    """How a task ended; `payload` holds the keys of the table above, in order."""

    state: str
    payload: Mapping[str, Any]
    traceback: str | None = None


@dataclass(frozen=True)
class Encoded:
    """A report as bytes: the file's content, and the lines for stdout, none when it fits."""

    state: str
    file: bytes
    lines: list[bytes] = field(default_factory=list)


def success(result: Any) -> Report:
    """Return the report of a body that returned `result`."""
    return Report("SUCCESS", {"result": plain_result(result)})


def failure(
    error: BaseException, trace: TracebackType | None = None, cause: BaseException | None = None
) -> Report:
    """Return the report of a failure with `error`.

    Args:
        error: What the client's `get()` raises.
        trace: The frames; without them the report has no traceback, as when Celery's worker and
            not the task's process finds the failure.
        cause: What the traceback is of, when that is not `error` itself.
    """
    text = None if trace is None else format_trace(error if cause is None else cause, trace)
    return Report("FAILURE", {"exception": exception_document(error)}, text)


def rejected(error: BaseException | None) -> Report:
    """Return the report of a task that rejected its message (`celery.exceptions.Reject`)."""
    return Report(
        "REJECTED",
        {
            "exception": exception_or_none(error),
            "requeue": bool(getattr(error, "requeue", False)),
        },
    )


def ignored(error: BaseException | None, told: Mapping[str, Any] | None = None) -> Report:
    """Return the report of a task that ended in `celery.exceptions.Ignore`.

    Args:
        error: The exception.
        told: The last state that the task told of itself; None: it told none.
    """
    payload: dict[str, Any] = {"exception": exception_or_none(error)}
    if told is not None:
        payload["told"] = told
    return Report("IGNORED", payload)


def retry_by_worker(error: Retry) -> Report:
    """Return the report of a function that raised Retry: the worker sends the message again."""
    when = error.when
    payload: dict[str, Any] = {"exception": exception_or_none(error.exc)}
    if isinstance(when, (int, float)):
        payload["countdown"] = when
    elif isinstance(when, datetime):
        payload["countdown"] = max(0, (when - datetime.now(when.tzinfo)).total_seconds())
    return Report("RETRY", payload, format_trace(error, own_frames_cut(error.__traceback__)))


def own_frames_cut(trace: TracebackType | None) -> TracebackType | None:
    """Return `trace` from the first frame on that is not this package's own."""
    package = f"{Path(__file__).parent}{os.sep}"
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(package):
        trace = trace.tb_next
    return trace


def exception_or_none(error: Any) -> dict[str, Any] | None:
    """Return `error` as Celery stores it, None when it is no exception."""
    return exception_document(error) if isinstance(error, BaseException) else None


def exception_document(error: BaseException) -> dict[str, Any]:
    """Return `error` as Celery stores it (`celery/backends/base.py: prepare_exception`)."""
    kind = type(error)
    return {
        "exc_type": kind.__qualname__,
        "exc_message": list(ensure_serializable(error.args, encode_json)),
        "exc_module": kind.__module__,
    }


def format_trace(error: BaseException, trace: TracebackType | None) -> str:
    """Return the text of a traceback."""
    text = "".join(traceback.format_exception(type(error), error, trace))
    # Half of a surrogate pair is no character, and strict JSON readers refuse its escape.
    return text.encode("utf-8", "backslashreplace").decode()


def encode_json(value: Any) -> str:
    """Return `value` in Kombu's JSON dialect.

    Raises:
        EncodeError: It has no such form.
    """
    text = serialization.dumps(value, serializer="json")[2]
    return text.decode() if isinstance(text, bytes) else str(text)


def encode(report: Report) -> Encoded:
    """Return the bytes of `report`; what cannot be said becomes a FAILURE that says so.

    Raises:
        EncodeError: A value of a payload other than an exception has no JSON form.
    """
    if report.state == "FAILURE" and "frames" not in report.payload:
        return _encoded_failure(report)
    inline = _document(report.state, report.payload, report.traceback)
    if len(inline) <= FILE_BYTES_MAX:
        return Encoded(report.state, inline)
    if report.state != "SUCCESS" and _size_without_trace(report) <= FILE_BYTES_MAX:
        return Encoded(report.state, _with_trimmed_trace(report))
    return _moved(report)


def write(encoded: Encoded, path: Path, stdout_fd: int = 1) -> None:
    """Write the lines to `stdout_fd` and then the file: who sees the file finds the lines.

    Raises:
        OSError: Either cannot be written.
    """
    for line in [b"\n", *encoded.lines] if encoded.lines else []:
        _output.write_all(stdout_fd, line)  # a pipe takes PIPE_BUF bytes, 4096, as a whole
    # A termination log is a mount of its own, so it cannot be replaced by a rename.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _output.write_all(descriptor, encoded.file)
    finally:
        os.close(descriptor)


def plain_result(result: Any) -> Any:
    """Return what Celery stores for a task that returns another task's result."""
    return result.as_tuple() if isinstance(result, ResultBase) else result


def _document(state: str, payload: Mapping[str, Any], trace: str | None) -> bytes:
    """Return the file's bytes with the payload in it."""
    texts = {key: encode_json(value) for key, value in payload.items()}
    digested = next(iter(texts.values())).encode()
    members = "".join(f'"{key}":{text},' for key, text in texts.items())
    return _framed(state, members, trace, digested)


def _framed(state: str, members: str, trace: str | None, digested: bytes) -> bytes:
    return (
        f'{{"v":{VERSION},"state":"{state}",{members}"traceback":{encode_json(trace)},'
        f'"bytes":{len(digested)},"sha256":"{hashlib.sha256(digested).hexdigest()}"}}'
    ).encode("ascii")


def _moved(report: Report) -> Encoded:
    """Return the report with its payload in lines, or the failure that says it is too large."""
    payload = encode_json(dict(report.payload)).encode("ascii")
    if len(payload) > PAYLOAD_BYTES_MAX:
        return _encoded_failure(failure(_too_large(report, len(payload))))
    chunks = [
        payload[start : start + LINE_RAW_BYTES] for start in range(0, len(payload), LINE_RAW_BYTES)
    ]
    lines = [
        f"{LINE_PREFIX} {number}/{len(chunks)} {base64.b64encode(chunk).decode()}\n".encode()
        for number, chunk in enumerate(chunks, 1)
    ]
    trace = report.traceback
    file = _longest(
        lambda keep: _framed(report.state, "", _trimmed(trace, keep), payload), len(trace or "")
    )
    return Encoded(report.state, file, lines)


def _too_large(report: Report, size: int) -> ResultTooLarge:
    what = "result" if report.state == "SUCCESS" else "report"
    return ResultTooLarge(
        f"the task's {what} of {size} bytes is over the limit of {PAYLOAD_BYTES_MAX}",
        {"category": "ResultTooLarge"},
    )


def _size_without_trace(report: Report) -> int:
    bare = None if report.traceback is None else ""
    return len(_document(report.state, report.payload, bare))


def _with_trimmed_trace(report: Report) -> bytes:
    trace = report.traceback
    return _longest(
        lambda keep: _document(report.state, report.payload, _trimmed(trace, keep)),
        len(trace or ""),
    )


def _encoded_failure(report: Report) -> Encoded:
    """Return a failure as bytes that fit, cutting its traceback first and then its exception."""
    trace_bytes = len(encode_json(report.traceback)) if report.traceback else 0
    # A short one may be replaced by the note that it was left out, which can be longer.
    reserved = min(max(trace_bytes, CUT_BYTES_MAX), TRACEBACK_BYTES_MIN) if trace_bytes else 0
    allowed = FILE_BYTES_MAX - reserved
    if _size_without_trace(report) > allowed:
        exception = report.payload["exception"]
        bare = None if report.traceback is None else ""
        shortened = _longest_value(
            lambda keep: {**report.payload, "exception": _shortened(exception, keep)},
            lambda payload: len(_document(report.state, payload, bare)) <= allowed,
            FILE_BYTES_MAX,
        )
        report = Report(report.state, shortened, report.traceback)
    return Encoded(report.state, _with_trimmed_trace(report))


def _shortened(exception: Mapping[str, Any], keep: int) -> dict[str, Any]:
    """Return an exception's document with texts of at most `keep` characters each."""
    arguments = exception["exc_message"][:ARGUMENTS_MAX]
    return {
        "exc_type": exception["exc_type"][:NAME_CHARACTERS_MAX],
        "exc_message": [_shortened_argument(argument, keep) for argument in arguments],
        "exc_module": exception["exc_module"][:NAME_CHARACTERS_MAX],
    }


def _shortened_argument(argument: Any, keep: int) -> Any:
    text = argument if isinstance(argument, str) else None
    if text is None:
        if len(encode_json(argument)) <= keep:
            return argument
        text = str(safe_repr(argument))
    return _trimmed(text, keep)


def _trimmed(text: str | None, keep: int) -> str | None:
    """Return `text` with its middle left out, so that about `keep` characters of it stay."""
    if text is None or len(text) <= keep:
        return text
    head = keep // 3
    tail = keep - head
    end = text[-tail:] if tail else ""
    return f"{text[:head]}\n... {len(text) - keep} characters left out ...\n{end}"


def _longest(build: Callable[[int], bytes], most: int) -> bytes:
    """Return `build(keep)` for the greatest `keep` up to `most` that fits into the file."""
    return _longest_value(build, lambda document: len(document) <= FILE_BYTES_MAX, most)


def _longest_value(build: Callable[[int], T], fits: Callable[[T], bool], most: int) -> T:
    """Return `build(keep)` for the greatest fitting `keep`, by bisection; 0 fits by assumption."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(build(middle)):
            low = middle
        else:
            high = middle - 1
    return build(low)
