"""What a process of the pool and a container share."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from petiole import _tracing


def test_request_in_kombus_json_dialect() -> None:
    text = '{"x_when": {"__type__": "datetime", "__value__": "2030-01-02T00:00:00+00:00"}}'
    when = datetime(2030, 1, 2, tzinfo=timezone.utc)
    assert _tracing.parse_request(text.encode()) == {"x_when": when}


@pytest.mark.parametrize("value", [[], {"x": {"__type__": "unknown", "__value__": 1}}])
def test_request_that_cannot_be_read(value: object) -> None:
    with pytest.raises(ValueError):
        _tracing.parse_request(json.dumps(value).encode())
