"""The control plane, as a user reaches it: the API over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from programs import DemoError

TIMEOUT_S = 10.0
OK = 200


@dataclass(frozen=True)
class ControlPlane:
    """An API at `url`."""

    url: str

    def log_in(self, username: str, password: str) -> User:
        """Return the user, logged in."""
        answer = self.ask("POST", "/auth/login", {"username": username, "password": password})
        return User(self, answer["user_id"], answer["token"])

    def request(
        self, method: str, path: str, body: object = None, token: str = ""
    ) -> tuple[int, Any]:
        """Return the status and the JSON of an answer.

        Raises:
            DemoError: There was none.
        """
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        address = self.url + path
        # S310 warns of file: addresses. This one is of a server that the demo has started.
        request = urllib.request.Request(address, data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError as error:
            raise DemoError(f"{method} {path}: {error}") from error

    def ask(self, method: str, path: str, body: object = None, token: str = "") -> Any:
        """Return the JSON of an answer with the status 200; raise DemoError for any other."""
        status, answer = self.request(method, path, body, token)
        if status != OK:
            raise DemoError(f"{method} {path}: {status} {answer}")
        return answer


@dataclass(frozen=True)
class User:
    """Somebody who is logged in."""

    control_plane: ControlPlane
    user_id: str
    token: str

    def train(self, config: dict[str, Any]) -> str:
        """Start a training and return its task's id."""
        answer = self.control_plane.ask("POST", "/train", {"config": config}, self.token)
        return str(answer["task_id"])

    def task(self, task_id: str) -> dict[str, Any]:
        """Return what the API says of a task."""
        answer: dict[str, Any] = self.control_plane.ask("GET", f"/task/{task_id}", None, self.token)
        return answer

    def status_of_task(self, task_id: str) -> int:
        """Return the HTTP status with which the API answers when asked for a task."""
        return self.control_plane.request("GET", f"/task/{task_id}", None, self.token)[0]
