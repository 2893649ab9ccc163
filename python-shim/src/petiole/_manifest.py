"""What a worker must know of an app, as one JSON document.

    {"v": 1,
     "app": "proj.celery",                      # as `celery -A` takes it; null: the default app
     "celery": "5.7.0", "python": "3.11.2",
     "settings": {"task_acks_late": true, …},   # what differs from Celery's defaults; new names
     "queues": {"celery": {"exchange": "celery", "exchange_type": "direct", "routing_key": "celery",
                           "queue_arguments": null}, …},
     "routes": [{"task": "feeds.*", "route": {"queue": "feeds"}}, {"regex": …, "route": …},
                {"function": "petiole.routing.by_tenant"}, …],       # in the order of task_routes
     "tasks": {"proj.add": {"acks_late": false, …, "throws": ["builtins.KeyError"]}, …},
     "warnings": ["one sentence each", …]}

Durations are seconds; exceptions are `module.Class`; a task's null means what it means in
`celery/app/task.py: Task`. Settings that are Petiole's routing's have the names that they have for
the worker (tenant_path, tenant_header, tenant_default).
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import celery
from celery import Task
from celery.app.defaults import DEFAULTS
from kombu.serialization import registry

from petiole import _manifest_warnings
from petiole._manifest_values import UnrepresentableError, class_name, has_secret, plain

VERSION = 1

# The worker's own settings; those of other result backends are for Python alone.
_SECTIONS = re.compile(
    r"(accept_content|result_accept_content|enable_utc|imports|include|timezone)$"
    r"|(beat|broker|control|event|redis|result|security|task|worker)_"
)
# Read by Celery, but not in its table of defaults.
_WITHOUT_DEFAULT = (
    "redis_client_name",
    "redis_backend_health_check_interval",
    "redis_backend_credential_provider",
    "result_backend_thread_safe",
    "worker_executable",
    "worker_gid",
    "worker_logfile",
    "worker_pidfile",
    "worker_uid",
    "worker_umask",
)
_KNOWN_SERIALIZERS = ("json", "pickle", "yaml", "msgpack")  # to the worker, by name
_TENANT_SETTINGS = ("tenant_path", "tenant_header", "tenant_default")
_SECRET_SETTINGS = ("broker_password", "redis_password", "security_key", "security_key_password")
_CELERY_VARIABLES = ("broker_url", "broker_read_url", "broker_write_url", "result_backend")
# Not missed: routes have their own place, annotations are in the tasks already, and a worker has
# no beat.
_QUIETLY_LEFT_OUT = ("task_routes", "task_annotations", "beat_schedule")

_FLAGS = (
    "acks_late",
    "acks_on_failure_or_timeout",
    "acks_on_failure",
    "acks_on_timeout",
    "reject_on_worker_lost",
    "retry_on_worker_lost",
    "ignore_result",
    "store_errors_even_if_ignored",
    "track_started",
    "send_events",
    "retry_jitter",
)
_VALUES = (
    "time_limit",
    "soft_time_limit",
    "rate_limit",
    "max_retries",
    "default_retry_delay",
    "retry_backoff",
    "retry_backoff_max",
    "retry_kwargs",
    "serializer",
    "priority",
    "expires",
    "resultrepr_maxsize",
)
_EXCEPTIONS = ("autoretry_for", "dont_autoretry_for", "throws")
# Nothing to an older Celery, whatever a task says.
_NEWER = ("acks_on_failure", "acks_on_timeout", "retry_on_worker_lost")


def document(app: Any, name: str | None, *, with_credentials: bool) -> dict[str, Any]:
    """Return the manifest of `app`, which is loaded and finalized.

    Args:
        app: A Celery app.
        name: What it was found by.
        with_credentials: Whether passwords, and URLs with passwords, are in it; a warning names
            each that is not.
    """
    warnings: list[str] = []
    settings = _settings(app.conf, warnings)
    if not with_credentials:
        _leave_out_credentials(settings, warnings)
    tasks = {task: _options(app.tasks[task], warnings) for task in sorted(app.tasks)}
    routes = list(_routes(app.conf.get("task_routes"), warnings))
    warnings.extend(_manifest_warnings.of_app(app))
    return {
        "v": VERSION,
        "app": name,
        "celery": celery.__version__,
        "python": platform.python_version(),
        "settings": settings,
        "queues": _queues(app.amqp.queues, warnings),
        "routes": routes,
        "tasks": tasks,
        "warnings": warnings,
    }


def _settings(conf: Any, warnings: list[str]) -> dict[str, Any]:
    """Return the settings that are not Celery's defaults."""
    found = {}
    names = [name for name in DEFAULTS if _SECTIONS.match(name)]
    for name in sorted({*names, *_WITHOUT_DEFAULT}):
        value, default = _effective(conf, name), DEFAULTS.get(name)
        if value == default:
            continue
        try:
            value = plain(value)
        except UnrepresentableError as error:
            if name not in _QUIETLY_LEFT_OUT:
                warnings.append(f"The setting {name} is left out: it holds {error}.")
            continue
        if value != (list(default) if isinstance(default, tuple) else default):
            found[name] = value
    for name in _TENANT_SETTINGS:
        value = conf.get(f"petiole_{name}")
        if value:
            found[name] = str(value)
    return found


def _effective(conf: Any, name: str) -> Any:
    """Return what the app says of a setting, without what the environment says.

    The worker reads the environment itself, and a file is to be good in another one; hence not
    the properties of `celery/app/utils.py: Settings`, but for the zone, which Django may name.
    """
    if name == "timezone":
        return conf.timezone
    if name == "accept_content":
        return _content_types(conf.get(name))
    if name == "broker_url":
        return conf.first("broker_url", "broker_host")
    if name == "result_backend":
        return conf.first("result_backend", "CELERY_RESULT_BACKEND")
    return conf.get(name)


def _content_types(names: Any) -> Any:
    """Return `accept_content` with types in place of the names of an app's own serializers."""
    if not isinstance(names, (list, tuple, set, frozenset)):
        return names
    types = registry.name_to_type
    return [name if name in _KNOWN_SERIALIZERS else types.get(name, name) for name in names]


def _leave_out_credentials(settings: dict[str, Any], warnings: list[str]) -> None:
    for name in sorted(settings):
        if name in _SECRET_SETTINGS or has_secret(settings[name]):
            del settings[name]
            brand = "CELERY" if name in _CELERY_VARIABLES else "PETIOLE"
            warnings.append(
                f"The setting {name} has a password in it and is left out: set the environment "
                f"variable {brand}_{name.upper()} where the worker runs."
            )


def _options(task: Any, warnings: list[str]) -> dict[str, Any]:
    """Return the options of a task: those of its class, and what the app's settings gave it."""
    readers: tuple[tuple[tuple[str, ...], Callable[[str, Any], Any]], ...] = (
        (_FLAGS, lambda _, value: None if value is None else bool(value)),
        (_VALUES, _option_value),
        (_EXCEPTIONS, lambda _, value: _exception_names(value)),
    )
    found = {}
    for names, read in readers:
        for name in names:
            if not hasattr(task, name) or (name in _NEWER and not hasattr(Task, name)):
                continue  # another Celery's, or one that the decorator would have set
            try:
                found[name] = read(name, getattr(task, name))
            except UnrepresentableError as error:
                warnings.append(f"Task {task.name}: {name} is left out: it is {error}.")
    return found


def _option_value(name: str, value: Any) -> Any:
    if name == "max_retries" and isinstance(value, int):
        return max(value, 0)  # less than none is none (celery/app/task.py: Task.retry)
    return plain(value)


def _exception_names(value: Any) -> list[str]:
    kinds = value if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    return [class_name(kind) for kind in kinds if kind is not None]


def _queues(queues: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return the queues that the app declares, by name."""
    found = {}
    for name, queue in queues.items():
        try:
            found[name] = {
                "exchange": queue.exchange.name if queue.exchange else "",
                "exchange_type": queue.exchange.type if queue.exchange else None,
                "routing_key": queue.routing_key,
                "queue_arguments": plain(queue.queue_arguments),
            }
        except UnrepresentableError as error:
            warnings.append(f"The queue {name} is left out: its arguments hold {error}.")
    return found


def _routes(task_routes: Any, warnings: list[str]) -> Iterator[dict[str, Any]]:
    """Yield each route in order (`celery/app/routes.py: prepare`)."""
    if task_routes is None:
        return
    routers = task_routes if isinstance(task_routes, (list, tuple)) else (task_routes,)
    for router in routers:
        if isinstance(router, (Mapping, list, tuple)):
            yield from _static_routes(router, warnings)
            continue
        function = class_name(router if isinstance(router, (str, type)) else _named(router))
        yield {"function": function}
        # This one the worker carries out itself: what it publishes stays with its tenant.
        if function != "petiole.routing.by_tenant":
            warnings.append(
                f"The route {function} of task_routes is a function: what the worker itself "
                "publishes, without Python, does not follow it."
            )


def _named(router: Any) -> Any:
    """Return what names a router: a function itself, of an object its class."""
    return router if hasattr(router, "__qualname__") else type(router)


def _static_routes(router: Any, warnings: list[str]) -> Iterator[dict[str, Any]]:
    for pattern, route in router.items() if isinstance(router, Mapping) else router:
        is_regex = isinstance(pattern, re.Pattern)
        text = pattern.pattern if is_regex else str(pattern)
        try:
            plain_route = {"queue": route} if isinstance(route, str) else plain(route)
        except UnrepresentableError as error:
            warnings.append(f"The route of {text} in task_routes is left out: it holds {error}.")
            continue
        yield {"regex" if is_regex else "task": text, "route": plain_route}
