"""The rights of a Role, and for each of them the request that it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Json = dict[str, Any]
EVERYWHERE = ""  # instead of a namespace: a request for those of all namespaces
WATCH = "watch=1&timeoutSeconds=1"


class Right(NamedTuple):
    """One verb on one resource, `pods/log` for example, of an API group."""

    group: str
    resource: str
    verb: str


class Request(NamedTuple):
    """Method, path and body of a request; what would change anything is a dry run."""

    method: str
    path: str
    body: Json | None = None


def each_right(role: Json) -> list[Right]:
    """Return everything that the Role allows."""
    return [
        Right(group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def collection_path(right: Right, namespace: str) -> str:
    """Return the path of the resource's objects, those of all namespaces for EVERYWHERE."""
    versions = {"": "/api/v1", "events.k8s.io": "/apis/events.k8s.io/v1"}
    head = versions.get(right.group, f"/apis/{right.group}/v1")
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"{head}{where}/{right.resource.partition('/')[0]}"


def request_of(right: Right, namespace: str, found: Json) -> Request:
    """Return the request that needs `right`, in a namespace or EVERYWHERE.

    `found` is an object of this kind: requests for one object are for it, and a new one is a copy
    of it with another name.
    """
    collection = collection_path(right, namespace)
    subresource = right.resource.partition("/")[2]
    one = f"{collection}/{found['metadata']['name']}{'/' if subresource else ''}{subresource}"
    made: dict[str, Callable[[], Request]] = {
        "get": lambda: Request("GET", one),
        "list": lambda: Request("GET", collection),
        "watch": lambda: Request("GET", f"{collection}?{WATCH}"),
        "create": lambda: Request("POST", f"{collection}?dryRun=All", _copy(found)),
        "update": lambda: Request("PUT", f"{one}?dryRun=All", found),
        "patch": lambda: Request("PATCH", f"{one}?dryRun=All", {"metadata": {}}),
        "delete": lambda: Request("DELETE", f"{one}?dryRun=All"),
    }
    return made[right.verb]()


def _copy(found: Json) -> Json:
    """Return an object like `found` that could be created beside it."""
    spec = {key: value for key, value in found["spec"].items() if key != "selector"}
    if "template" in spec:
        spec["template"] = {"spec": spec["template"]["spec"]}
    name = f"{found['metadata']['name']}-too"
    return {"metadata": {"name": name}, "spec": spec}
