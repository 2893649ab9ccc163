"""Send every task to the queue of its tenant.

A control plane adds one line to its Celery settings:

    task_routes = ("petiole.routing.by_tenant",)

A tenant is the name of a Kubernetes namespace, and its queue has the same name. Three settings
say where the tenant is found. Each is an environment variable of the name in upper case, else a
setting of the Celery app, else the default. The worker has the same three:

    petiole_tenant_path      kwargs.config.metadata.namespace
    petiole_tenant_header    petiole_tenant
    petiole_tenant_default   tenant-user

The module needs nothing but Celery.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery import current_app, current_task

__all__ = ["InvalidTenantError", "by_tenant"]

LABEL_CHARACTERS_MAX = 63
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class InvalidTenantError(ValueError):
    """A task cannot be routed: what should name its tenant cannot be a namespace's name."""


@dataclass(frozen=True)
class _Settings:
    """Where a task's tenant is found, and which it is when nothing tells."""

    path: str = "kwargs.config.metadata.namespace"
    header: str = "petiole_tenant"
    default: str = "tenant-user"


def by_tenant(
    name: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: MutableMapping[str, Any] | None,
    task: Any = None,
    **_: Any,
) -> dict[str, Any]:
    """Return the route of a task: its tenant's queue, with the tenant in a message header.

    The tenant is read from the path into the task's arguments, else from the header of
    `options` or of the task that is sending this one, else it is the default. A queue or exchange
    that the caller names himself stays: the task then gets the header when its arguments or a
    header name a tenant, and none otherwise, because its queue already says whose it is.

    Args:
        name: The task's name, for the error.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        options: The options of the send; their `headers` are replaced by a copy with the header in
            it, because Celery (`celery/app/routes.py: Router.route`) lets the options win over
            the route.
        task: The task's class, or None when the sender only knows the name.

    Raises:
        InvalidTenantError: The value found is not an RFC 1123 label.
    """
    settings = _settings(task)
    options = {} if options is None else options
    headers = dict(options.get("headers") or {})
    tenant = _stated_tenant(settings, args, kwargs, headers)
    has_destination = bool(options.get("queue") or options.get("exchange"))
    if tenant is None:
        if has_destination:
            return {}
        tenant = settings.default
    headers[settings.header] = _checked(name, tenant)
    options["headers"] = headers
    return {"headers": headers} if has_destination else {"queue": tenant, "headers": headers}


def _settings(task: Any) -> _Settings:
    """Read the three settings; empty ones count as unset."""
    conf = (current_app if task is None else task.app).conf
    values = {}
    for field in ("path", "header", "default"):
        name = f"petiole_tenant_{field}"
        value = os.environ.get(name.upper()) or conf.get(name)
        if value:
            values[field] = str(value)
    return _Settings(**values)


def _stated_tenant(
    settings: _Settings,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    headers: Mapping[str, Any],
) -> Any:
    """Return what the task says about its tenant, unchecked, or None."""
    value = _follow(settings.path, {"args": args or (), "kwargs": kwargs or {}})
    if value is None:
        value = headers.get(settings.header)
    return _inherited(settings.header) if value is None else value


def _follow(path: str, tree: Any) -> Any:
    """Return the value at a dotted path of keys and list positions, None when a step is missing."""
    for step in path.split("."):
        if isinstance(tree, Mapping):
            tree = tree.get(step)
        elif isinstance(tree, (list, tuple)) and step.isdecimal() and int(step) < len(tree):
            tree = tree[int(step)]
        else:
            return None
    return tree


def _inherited(header: str) -> Any:
    """Return the header of the task that is running here, or None.

    Celery keeps a message's own headers as attributes of the request, and from 5.3 on also in
    its `headers` (`celery/app/task.py: Context`).
    """
    if not current_task:
        return None
    request = current_task.request
    value = request.get(header)
    return (request.headers or {}).get(header) if value is None else value


def _checked(name: str, tenant: Any) -> str:
    """Return `tenant` when it can be the name of a namespace; raise InvalidTenantError if not."""
    if isinstance(tenant, str) and len(tenant) <= LABEL_CHARACTERS_MAX and _LABEL.fullmatch(tenant):
        return tenant
    raise InvalidTenantError(
        f"task {name} cannot be routed: its tenant {tenant!r:.100} is not a namespace's name "
        f"(1 to {LABEL_CHARACTERS_MAX} characters of a-z, 0-9 and -, no - at either end)"
    )
