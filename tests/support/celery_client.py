"""Client apps of Celery that leave nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from celery import Celery
from kombu import pools
from redis_server import RedisServer


@contextlib.contextmanager
def client_app(server: RedisServer, user: str = "", password: str = "") -> Iterator[Celery]:
    """Return an app with its broker in database 0 of `server` and its results in database 1."""
    broker, backend = (server.url(database, user, password) for database in (0, 1))
    app = Celery("client", broker=broker, backend=backend, set_as_current=False)
    try:
        yield app
    finally:
        close_app(app)


def close_app(app: Celery) -> None:
    """Close the connections of an app to its broker and its result backend.

    Kombu keeps those to a broker for all apps of the program (`kombu.pools`): other apps lose
    theirs too, so close them together.

    A result that is garbage only after this would subscribe itself off, and connect for it to a
    Redis that may have ended (`AsyncResult.__del__`); that of a closed app does nothing.
    """
    backend = app.backend
    backend.remove_pending_result = lambda result: result
    if consumer := getattr(backend, "result_consumer", None):
        consumer.stop()
    if client := getattr(backend, "client", None):
        client.close()
    app.close()
    pools.reset()
