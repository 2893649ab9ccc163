"""What a container finds when it starts: command, environment, working directory and volumes.

There are no mount namespaces here: a volume is a folder of this machine, and every path under a
``mountPath`` that appears in the container's command, args, env values or workingDir is rewritten
to that folder. The same holds for ``terminationMessagePath`` (default /dev/termination-log), and
PETIOLE_RESULT_FILE is set to it when the container does not set it. A path that a program has
built in, or gets in any other way, is *not* rewritten. Values of ``fieldRef`` are data and stay
as they are.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kube_client import ApiError, Json, KubeClient

_TERMINATION_LOG = "/dev/termination-log"
_RESULT_FILE = "PETIOLE_RESULT_FILE"
_TOKEN_SECONDS = 3607
_NOT_FOUND = 404
_SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGT")
}


class NotReady(RuntimeError):
    """The container cannot start yet; ``reason`` is the kubelet's word for it."""

    def __init__(self, reason: str, message: str) -> None:
        """MESSAGE is a sentence for the container's state."""
        super().__init__(message)
        self.reason = reason


class StartError(RuntimeError):
    """The container can never start: there is no such program."""


@dataclass(frozen=True)
class Launch:
    """All that a process needs: argv with a full path first, and the termination message file."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path
    message_file: Path


@dataclass(frozen=True)
class Machine:
    """What stands for the image: the same for all containers."""

    python: str
    env: Mapping[str, str]
    pythonpath: str


def parse_quantity(text: str | float) -> float:
    """Return a Kubernetes quantity ("200m", "256Mi", 2) as a number."""
    match = re.fullmatch(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)([A-Za-z]*)", str(text))
    if not match:
        raise ValueError(f"not a quantity: {text}")
    return float(match[1]) * _SUFFIXES.get(match[2], 1.0)


def field_value(pod: Json, path: str) -> str:
    """Return what a fieldRef of POD with this fieldPath stands for. Raises NotReady."""
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(pod["metadata"].get(match[1], {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries = pod["metadata"].get(path.partition(".")[2], {})
        return "\n".join(f'{key}="{entries[key]}"' for key in sorted(entries))
    part, _, name = path.partition(".")
    if part == "status" and name in ("podIP", "hostIP"):
        return "127.0.0.1"
    if part in ("metadata", "spec") and name in pod[part]:
        return str(pod[part][name])
    raise NotReady("CreateContainerConfigError", f"unsupported fieldPath {path}")


class PodFiles:
    """The folders and values of one pod."""

    def __init__(self, pod: Json, folder: Path, claims: Path, client: KubeClient) -> None:
        """FOLDER is the pod's own; CLAIMS has a folder per namespace and claim, shared by pods."""
        self._pod = pod
        self._folder = folder
        self._claims = claims
        self._client = client
        self._namespace: str = pod["metadata"]["namespace"]
        self._objects: dict[tuple[str, str], Json | None] = {}

    def launch(self, container: Json, machine: Machine) -> Launch:
        """Write the container's volumes and return how to start it.

        Raises NotReady when something that it refers to is missing, StartError when its program is.
        """
        # Asked for again at each try, since what was missing may be there now.
        self._objects.clear()
        root = self._folder / "root" / container["name"]
        root.mkdir(parents=True, exist_ok=True)
        message_file = self._folder / f"{container['name']}-termination-log"
        message_file.write_bytes(b"")
        paths = {container.get("terminationMessagePath", _TERMINATION_LOG): str(message_file)}
        env = self._base_env(machine, root)
        own, fields = self._container_env(container)
        for mount in container.get("volumeMounts", []):
            paths[mount["mountPath"].rstrip("/")] = str(self._mount(mount, own | fields))
        rewrite = _rewriter(paths)
        own = {name: rewrite(value) for name, value in own.items()} | fields
        own.setdefault(_RESULT_FILE, str(message_file))
        search = [machine.pythonpath, own.get("PYTHONPATH", env.get("PYTHONPATH", ""))]
        env |= own
        if found := os.pathsep.join(filter(None, search)):
            env["PYTHONPATH"] = found
        words = [*container.get("command", []), *container.get("args", [])]
        argv = [rewrite(_expand(word, env)) for word in words]
        working = container.get("workingDir", "/")
        cwd = Path(rewrite(working))
        if str(cwd) == working:
            cwd = root / working.lstrip("/")
        cwd.mkdir(parents=True, exist_ok=True)
        return Launch(_find_program(argv, machine, env), env, cwd, message_file)

    def delete(self) -> None:
        """Delete everything but the claims."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _base_env(self, machine: Machine, home: Path) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "HOSTNAME": self._pod["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": self._client.host,
            "KUBERNETES_SERVICE_PORT": str(self._client.port),
            **machine.env,
        }

    def _container_env(self, container: Json) -> tuple[dict[str, str], dict[str, str]]:
        """Return the container's own variables: those that may hold paths, and the fieldRefs."""
        plain: dict[str, str] = {}
        fields: dict[str, str] = {}
        for source in container.get("envFrom", []):
            for kind in ("configMap", "secret"):
                if reference := source.get(f"{kind}Ref"):
                    prefix = source.get("prefix", "")
                    data = self._data(kind, reference["name"], reference.get("optional", False))
                    plain |= {prefix + key: value.decode() for key, value in data.items()}
        for entry in container.get("env", []):
            source = entry.get("valueFrom")
            if source is None:
                plain[entry["name"]] = _expand(entry.get("value", ""), plain | fields)
            elif "fieldRef" in source:
                fields[entry["name"]] = field_value(self._pod, source["fieldRef"]["fieldPath"])
            elif (value := self._referenced(container, source)) is not None:
                plain[entry["name"]] = value
        return plain, fields

    def _referenced(self, container: Json, source: Json) -> str | None:
        if reference := source.get("resourceFieldRef"):
            part, _, name = reference["resource"].partition(".")
            amount = parse_quantity(container.get("resources", {}).get(part, {}).get(name, 0))
            divisor = parse_quantity(reference.get("divisor", 1)) or 1.0
            return str(math.ceil(amount / divisor))
        kind = "configMap" if "configMapKeyRef" in source else "secret"
        reference = source[f"{kind}KeyRef"]
        is_optional = reference.get("optional", False)
        data = self._data(kind, reference["name"], is_optional)
        if reference["key"] in data:
            return data[reference["key"]].decode()
        if is_optional:
            return None
        raise NotReady("CreateContainerConfigError", f"no key {reference['key']}")

    def _data(self, kind: str, name: str, is_optional: bool) -> dict[str, bytes]:
        """Return the entries of a ConfigMap or Secret of the pod's namespace."""
        if (kind, name) not in self._objects:
            path = f"/api/v1/namespaces/{self._namespace}/{kind.lower()}s/{name}"
            try:
                self._objects[kind, name] = self._client.patient("GET", path)
            except ApiError as error:
                if error.status != _NOT_FOUND:
                    raise
                self._objects[kind, name] = None
        found = self._objects[kind, name]
        if found is None:
            if is_optional:
                return {}
            raise NotReady("CreateContainerConfigError", f'{kind.lower()} "{name}" not found')
        decoded = {key: b64decode(value) for key, value in found.get("binaryData", {}).items()}
        for key, value in found.get("data", {}).items():
            decoded[key] = b64decode(value) if kind == "secret" else value.encode()
        return decoded

    def _mount(self, mount: Json, env: Mapping[str, str]) -> Path:
        """Return the folder or file that stands for a volumeMount."""
        volume = next(v for v in self._pod["spec"]["volumes"] if v["name"] == mount["name"])
        folder = self._volume(volume)
        part = mount.get("subPath") or _expand(mount.get("subPathExpr", ""), env)
        if not part:
            return folder
        target = (folder / part).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise NotReady("CreateContainerConfigError", f"subPath {part} leaves its volume")
        if not target.exists():
            target.mkdir(parents=True)
        return target

    def _volume(self, volume: Json) -> Path:
        if claim := volume.get("persistentVolumeClaim"):
            self._check_claim(claim["claimName"])
            folder = self._claims / self._namespace / str(claim["claimName"])
        else:
            folder = self._folder / "volumes" / str(volume["name"])
        folder.mkdir(parents=True, exist_ok=True)
        writers: dict[str, Callable[[Path, Json], None]] = {
            "downwardAPI": self._write_fields,
            "configMap": lambda where, source: self._write_data(where, "configMap", source),
            "secret": lambda where, source: self._write_data(where, "secret", source),
            "projected": self._write_projected,
        }
        for kind, write in writers.items():
            if kind in volume:
                write(folder, volume[kind])
                return folder
        if "persistentVolumeClaim" in volume or "emptyDir" in volume:
            return folder
        kinds = sorted(volume.keys() - {"name"})
        raise NotReady("ContainerCreating", f"volume {volume['name']}: no support for {kinds}")

    def _check_claim(self, name: str) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/persistentvolumeclaims/{name}"
        try:
            self._client.patient("GET", path)
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            raise NotReady(
                "ContainerCreating", f'persistentvolumeclaim "{name}" not found'
            ) from error

    def _write_fields(self, folder: Path, source: Json) -> None:
        for item in source.get("items", []):
            value = field_value(self._pod, item["fieldRef"]["fieldPath"])
            _write(folder / item["path"], value.encode())

    def _write_data(self, folder: Path, kind: str, source: Json) -> None:
        name: str = source.get("name") or source["secretName"]
        try:
            data = self._data(kind, name, source.get("optional", False))
        except NotReady as error:
            # A kubelet goes on creating the container when a volume is missing.
            raise NotReady("ContainerCreating", str(error)) from error
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            if item["key"] in data:
                _write(folder / item["path"], data[item["key"]])

    def _write_projected(self, folder: Path, source: Json) -> None:
        for part in source.get("sources", []):
            if "serviceAccountToken" in part:
                self._write_token(folder, part["serviceAccountToken"])
            if "downwardAPI" in part:
                self._write_fields(folder, part["downwardAPI"])
            for kind in ("configMap", "secret"):
                if kind in part:
                    self._write_data(folder, kind, part[kind])

    def _write_token(self, folder: Path, source: Json) -> None:
        account = self._pod["spec"]["serviceAccountName"]
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
        spec: Json = {
            "expirationSeconds": source.get("expirationSeconds", _TOKEN_SECONDS),
            "boundObjectRef": {
                "kind": "Pod",
                "apiVersion": "v1",
                "name": self._pod["metadata"]["name"],
                "uid": self._pod["metadata"]["uid"],
            },
        }
        if "audience" in source:
            spec["audiences"] = [source["audience"]]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        token = self._client.patient("POST", path, body)["status"]["token"]
        _write(folder / source["path"], token.encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _rewriter(paths: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that replaces each of PATHS, or a path below it, in a text."""
    longest_first: Iterable[str] = sorted(paths, key=len, reverse=True)
    pattern = "|".join(re.escape(path) for path in longest_first)
    whole = re.compile(rf"(?<![\w./-])({pattern})(?![\w.-])")
    return lambda text: whole.sub(lambda match: paths[match[1]], text)


def _expand(text: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) as Kubernetes does: unknown names stay, $$ is one dollar."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else env.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^()]+)\)", replace, text)


def _find_program(argv: list[str], machine: Machine, env: Mapping[str, str]) -> list[str]:
    if not argv:
        raise StartError("no command: there is no image here whose entrypoint could be run")
    if argv[0] in ("python", "python3"):
        return [machine.python, *argv[1:]]
    program = shutil.which(argv[0], path=env.get("PATH"))
    if program is None:
        raise StartError(f'exec: "{argv[0]}": executable file not found in $PATH')
    return [program, *argv[1:]]
