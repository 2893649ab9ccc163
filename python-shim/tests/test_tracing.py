"""What a process of the pool and a container share."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context

from petiole import _tracing


class Backend:
    """A backend behind whose server is away at first."""

    def __init__(self) -> None:
        self.calls = 0

    def _store_result(self, *_arguments: object) -> str:
        self.calls += 1
        if self.calls == 1:
            raise ConnectionError
        return "stored"

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, ConnectionError)


def encoder(backend: Backend, **settings: object) -> _tracing.Encoder:
    app = Celery("encoder", set_as_current=False)
    app.conf.update(settings)
    return _tracing.Encoder(app, None, lambda: backend)


class OwnBackend(Celery):
    """An app whose class says where results go."""

    backend_cls = "cache+memory://"


@pytest.mark.parametrize(("kind", "leads"), [(Celery, True), (OwnBackend, False)])
def test_whose_backend_is_led(kind: type[Celery], leads: bool) -> None:
    app = kind("led", backend="redis://127.0.0.1:1", set_as_current=False)
    stranger: Any = None
    _tracing.lead_stores_to(app, stranger)
    assert isinstance(app._get_backend(), _tracing.LeadingBackend) == leads


def test_member_of_a_chord_is_stored_when_its_backend_is_back() -> None:
    backend = Backend()
    request = Context(id="id", chord={"task": "body"})
    encoder(backend, result_backend_always_retry=True).store_result(
        "id", 1, "SUCCESS", request=request
    )
    assert backend.calls == 2


def test_settings_that_celery_would_warn_of() -> None:
    """Warnings are errors in tests."""
    settings = {"result_compression": "gzip", "result_failure_expires": 60}
    assert encoder(Backend(), **settings).encode({"a": 1}) == '{"a": 1}'


def test_request_in_kombus_json_dialect() -> None:
    text = '{"x_when": {"__type__": "datetime", "__value__": "2030-01-02T00:00:00+00:00"}}'
    when = datetime(2030, 1, 2, tzinfo=timezone.utc)
    assert _tracing.parse_request(text.encode()) == {"x_when": when}


@pytest.mark.parametrize("value", [[], {"x": {"__type__": "unknown", "__value__": 1}}])
def test_request_that_cannot_be_read(value: object) -> None:
    with pytest.raises(ValueError):
        _tracing.parse_request(json.dumps(value).encode())
