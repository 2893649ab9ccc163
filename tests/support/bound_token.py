"""Tokens that a test can take back: each is bound to a Secret, and ends with it.

The file with the token is replaced as a kubelet does it, at once and as a whole.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from cluster import Cluster
from kube_client import ApiError, KubeClient
from waiting import wait_for

# The least that the API server grants (TokenRequest).
LIFE_S = 600
# For so long at most it may go on to believe what it has looked up before: ten, by its clock.
CACHE_S = 60.0


def write_kubeconfig(path: Path, url: str, ca: Path, token: Path) -> Path:
    """Write a kubeconfig that names files, whose content may change; return its path."""
    path.touch(mode=0o600)
    path.write_text(
        f"""apiVersion: v1
kind: Config
clusters:
- name: test
  cluster: {{server: "{url}", certificate-authority: {ca}}}
users:
- name: test
  user: {{tokenFile: {token}}}
contexts:
- name: test
  context: {{cluster: test, user: test}}
current-context: test
"""
    )
    return path


class BoundToken:
    """A token of a ServiceAccount in a file; the one before ends when a new one is written."""

    def __init__(self, cluster: Cluster, namespace: str, serviceaccount: str, path: Path) -> None:
        """Write the first one to `path`."""
        self.path = path
        self._cluster = cluster
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self._tokens = f"/api/v1/namespaces/{namespace}/serviceaccounts/{serviceaccount}/token"
        self._secret = ""
        self._token = ""
        self.rotate()

    def rotate(self) -> str:
        """Write a new one, end the one before and return that."""
        ended, ended_secret = self._token, self._secret
        client = self._cluster.client
        meta = {"name": f"bound-{uuid.uuid4().hex[:12]}"}
        made = client.patient("POST", self._secrets, {"metadata": meta})["metadata"]
        bound = {"apiVersion": "v1", "kind": "Secret", "name": made["name"], "uid": made["uid"]}
        spec = {"expirationSeconds": LIFE_S, "boundObjectRef": bound}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = client.patient("POST", self._tokens, body)
        self._secret, self._token = made["name"], str(answer["status"]["token"])
        fresh = self.path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(self._token + "\n")
        fresh.replace(self.path)
        if ended_secret:
            client.patient("DELETE", f"{self._secrets}/{ended_secret}")
        return ended

    def wait_ended(self, token: str) -> None:
        """Return when the API server accepts a token no more."""
        client = KubeClient(self._cluster.url, self._cluster.ca, token=token)

        def is_refused() -> bool:
            try:
                client.request("GET", "/api")
            except ApiError as error:
                return error.status == 401
            return False

        wait_for(is_refused, CACHE_S, "the end of a token")

    def close(self) -> None:
        """End the last one."""
        self._cluster.client.patient("DELETE", f"{self._secrets}/{self._secret}")
