"""Python values as JSON, and which of them are secret."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta, tzinfo
from enum import Enum
from functools import singledispatch
from pathlib import PurePath
from typing import Any

from kombu.entity import Exchange, Queue
from kombu.utils.functional import maybe_evaluate

# `redis://user:password@host`, wherever it stands in a text: `db+postgresql://` and lists too.
_URL_WITH_PASSWORD = re.compile(r"://[^:/?#@]*:[^@]+@")
_PASSWORD_IN_QUERY = re.compile(r"[?&;][^=&;]*(passw|secret|token|accountkey|sig=)", re.IGNORECASE)
_CONNECTION_STRING = re.compile(r"^azure\w+://", re.IGNORECASE)
_SECRET_KEY = re.compile(
    r"passw|secret|credential|access_?key|account_?key|api_?key|private_?key|token", re.IGNORECASE
)
_QUEUE_FIELDS = (
    "routing_key",
    "queue_arguments",
    "binding_arguments",
    "consumer_arguments",
    "durable",
    "exclusive",
    "auto_delete",
    "no_ack",
    "alias",
    "no_declare",
    "expires",
    "message_ttl",
    "max_length",
    "max_length_bytes",
    "max_priority",
)
_SAID_WHEN_FALSE = ("exchange", "routing_key", "durable")


class UnrepresentableError(Exception):
    """A value has no form in JSON; the text says what it is."""


def plain(value: Any) -> Any:
    """Return `value` as JSON can say it: durations in seconds, queues as objects, enums by name.

    Raises:
        UnrepresentableError: There is no such form.
    """
    value = maybe_evaluate(value)
    if isinstance(value, Enum):  # before int: ssl.CERT_REQUIRED is both
        return value.name
    try:
        return _plain(value)
    except RecursionError:
        raise UnrepresentableError("a value that contains itself") from None


def class_name(kind: Any) -> str:
    """Return `module.Class`, as results name exceptions (`celery/backends/base.py`)."""
    if isinstance(kind, str):
        return kind
    name = str(
        getattr(kind, "__qualname__", None) or getattr(kind, "__name__", type(kind).__name__)
    )
    module = getattr(kind, "__module__", type(kind).__module__)
    # The qualified name of a bootstep has its module in it already (celery/bootsteps.py: StepType).
    return name if name.startswith(f"{module}.") else f"{module}.{name}"


def has_secret(value: Any) -> bool:
    """Return whether a plain value has a password in it, in a URL or under a telling key."""
    if isinstance(value, str):
        patterns = (_URL_WITH_PASSWORD, _PASSWORD_IN_QUERY, _CONNECTION_STRING)
        return any(pattern.search(value) for pattern in patterns)
    if isinstance(value, dict):
        return any(
            has_secret(member) or (_SECRET_KEY.search(key) is not None and bool(member))
            for key, member in value.items()
        )
    return isinstance(value, list) and any(map(has_secret, value))


@singledispatch
def _plain(value: Any) -> Any:
    raise UnrepresentableError(f"a {type(value).__module__}.{type(value).__qualname__}")


@_plain.register(bool)
@_plain.register(int)
@_plain.register(type(None))
def _(value: Any) -> Any:
    return value


@_plain.register
def _(value: str) -> str:
    if "\0" in value:
        raise UnrepresentableError("a text with a NUL character")
    return str(value)


@_plain.register
def _(value: float) -> float:
    if not math.isfinite(value):
        raise UnrepresentableError(f"the number {value}")
    return value


@_plain.register
def _(value: timedelta) -> float:
    seconds = value.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


@_plain.register
def _(value: tzinfo) -> str:
    return getattr(value, "key", None) or getattr(value, "zone", None) or str(value)


@_plain.register
def _(value: PurePath) -> str:
    return str(value)


@_plain.register
def _(value: type) -> str:
    return class_name(value)


@_plain.register(list)
@_plain.register(tuple)
def _(value: Any) -> list[Any]:
    return [plain(item) for item in value]


@_plain.register(set)
@_plain.register(frozenset)
def _(value: Any) -> list[Any]:
    return sorted((plain(item) for item in value), key=str)


@_plain.register
def _(value: Mapping) -> dict[str, Any]:  # type: ignore[type-arg] # singledispatch needs the class
    return {str(plain(key)): plain(member) for key, member in value.items()}


@_plain.register
def _(value: Exchange) -> dict[str, Any]:
    fields = {
        "name": value.name,
        "type": value.type,
        "arguments": getattr(value, "arguments", None) or None,
    }
    return {key: plain(member) for key, member in fields.items() if member is not None}


def _binding(value: Any) -> dict[str, Any]:
    """Return a further binding of a queue, which then has no exchange (`kombu/entity.py`)."""
    exchange = value.exchange
    return {
        "exchange": exchange.name if exchange else "",
        "exchange_type": exchange.type if exchange else None,
        "routing_key": value.routing_key,
    }


@_plain.register
def _(value: Queue) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": value.name,
        "exchange": value.exchange.name if value.exchange else "",
        "exchange_type": value.exchange.type if value.exchange else None,
    }
    fields.update((key, getattr(value, key, None)) for key in _QUEUE_FIELDS)
    fields["bindings"] = sorted(map(_binding, value.bindings), key=str)
    return {
        key: plain(member)
        for key, member in fields.items()
        if member or (key in _SAID_WHEN_FALSE and member is not None)
    }
