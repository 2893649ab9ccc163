"""The task as the worker hands it to the container: the content of `PETIOLE_TASK_FILE`.

One JSON object:

    {"v": 1,
     "headers": {…},              the message's headers, protocol 2 (the worker converts protocol 1)
     "properties": {…},           the message's properties as the broker had them
     "content-type": "application/json",
     "content-encoding": "utf-8",
     "body": "…",                 base64 of the serialized body, decompressed
     "body_encoding": "base64"}

The body is [args, kwargs, embed] in the serializer of its content type. Headers and properties are
in Kombu's JSON dialect, as far as the installed Kombu reads one: from 5.3 on {"__type__": …} is a
time, a UUID and the like (`kombu/transport/virtual/base.py: Channel._deliver`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery.exceptions import InvalidTaskError
from kombu import serialization
from kombu.utils import json

VERSION = 1
BODY_ITEMS = 3


@dataclass(frozen=True)
class Message:
    """A task message, its body still serialized."""

    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    content_type: str
    content_encoding: str
    body: bytes

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.headers["task"])

    @property
    def id(self) -> str:
        """The task's id."""
        return str(self.headers["id"])


@dataclass(frozen=True)
class Call:
    """What a body says: the arguments, and the canvas around the task."""

    args: list[Any]
    kwargs: dict[str, Any]
    embed: Mapping[str, Any]


def read(path: Path) -> Message:
    """Return the message in the file `path`.

    Raises:
        InvalidTaskError: The file cannot be read or does not hold such an object.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidTaskError(f"the task file {path} cannot be read: {error.strerror}") from error
    except Exception as error:  # a type that is unknown, or a value that its decoder refuses
        raise InvalidTaskError(f"the task file {path} is not JSON: {error}") from error
    return _parse(document)


def decode(message: Message, accept: Collection[str]) -> Call:
    """Deserialize the body of `message`.

    Args:
        message: The message.
        accept: Serializer names or content types that may be deserialized.

    Raises:
        ContentDisallowed: The content type is none of `accept`.
        DecodeError: The body is not what its content type says.
        InvalidTaskError: It is not [args, kwargs, embed].
    """
    body = serialization.loads(
        message.body,
        message.content_type,
        message.content_encoding,
        accept=serialization.prepare_accept_content(accept),
    )
    if not isinstance(body, (list, tuple)) or len(body) != BODY_ITEMS:
        raise InvalidTaskError("the message body is not [args, kwargs, embed]")
    args, kwargs, embed = body
    if not isinstance(args, (list, tuple)):
        raise InvalidTaskError("Task arguments must be a list")
    if not isinstance(kwargs, Mapping):
        raise InvalidTaskError("Task keyword arguments must be a mapping")
    if embed is not None and not isinstance(embed, Mapping):
        raise InvalidTaskError("the canvas of the message body must be a mapping")
    return Call(list(args), dict(kwargs), embed or {})


def _parse(document: Any) -> Message:
    if not isinstance(document, dict) or document.get("v") != VERSION:
        raise InvalidTaskError(f"the task file is not an object of version {VERSION}")
    if document.get("body_encoding") != "base64":
        raise InvalidTaskError("the task file's body_encoding must be base64")
    headers = _mapping(document, "headers")
    for key in ("task", "id"):
        if not isinstance(headers.get(key), str) or not headers[key]:
            raise InvalidTaskError(f"the message has no {key}")
    try:
        body = base64.b64decode(document.get("body", ""), validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidTaskError(f"the task file's body is not base64: {error}") from error
    return Message(
        headers=headers,
        properties=_mapping(document, "properties"),
        content_type=str(document.get("content-type") or "application/json"),
        content_encoding=str(document.get("content-encoding") or "utf-8"),
        body=body,
    )


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object at `key`, {} when it is missing or null."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidTaskError(f"the task file's {key} must be an object")
    return value
