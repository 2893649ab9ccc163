"""Container images made of files of this machine, for a node that can reach no registry.

An image has one layer, in which every file lies where it lies here: what runs on this machine
with a path runs in the container with the same path.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_EPOCH = "1970-01-01T00:00:00Z"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# What no task needs; a Python without these is a third of the size.
_SKIPPED = frozenset(
    ["__pycache__", "ensurepip", "idlelib", "site-packages", "test", "tests", "tkinter"]
)
_MERGED = ("bin", "lib", "lib64", "sbin")
_ELF = b"\x7fELF"
_LIBRARY = re.compile(r"(?:=>\s*)?(/\S+) \(0x")
_PAUSE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { (void) number; _exit(0); }
int main(void)
{
    signal(SIGTERM, end);
    for (;;) {
        if (wait(NULL) < 0) pause();
    }
}
"""


class Layer:
    """The file system of an image, as it grows."""

    def __init__(self) -> None:
        """Start with the folders that every container needs, and the links of a merged /usr."""
        self._bytes = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._bytes, mode="w")
        self._names: set[str] = set()
        for name in ("dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"):
            self._folder(name, 0o1777 if name == "tmp" else 0o755)
        for name in _MERGED:
            self._folder(f"usr/{name}", 0o755)
            self._link(name, f"usr/{name}")
        self.text("/etc/passwd", "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")

    def text(self, path: str, text: str) -> None:
        """Add a file with this content."""
        self._file(path.strip("/"), text.encode(), 0o644)

    def add(self, path: Path) -> None:
        """Add a file, link or folder; of programs and libraries also the libraries they load."""
        if path.is_symlink():
            self._link(_inside(path), str(path.readlink()))
            self.add(path.parent / path.readlink())
        elif path.is_dir():
            for each in sorted(path.iterdir()):
                if each.name not in _SKIPPED and not each.name.startswith("config-"):
                    self.add(each)
        elif path.is_file():
            self._program_or_file(path)

    def close(self) -> bytes:
        """Return the whole as a tar archive."""
        self._tar.close()
        return self._bytes.getvalue()

    def _program_or_file(self, path: Path) -> None:
        name = _inside(path)
        if name in self._names:
            return
        content = path.read_bytes()
        self._file(name, content, 0o755 if os.access(path, os.X_OK) else 0o644)
        if content.startswith(_ELF):
            for library in _libraries(path):
                self.add(library)

    def _file(self, name: str, content: bytes, mode: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        entry.mode = mode
        self._put(entry, io.BytesIO(content))

    def _link(self, name: str, target: str) -> None:
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.SYMTYPE
        entry.linkname = target
        self._put(entry)

    def _folder(self, name: str, mode: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.DIRTYPE
        entry.mode = mode
        self._put(entry)

    def _put(self, entry: tarfile.TarInfo, content: io.BytesIO | None = None) -> None:
        if entry.name in self._names:
            return
        parent = entry.name.rpartition("/")[0]
        if parent and parent not in self._names:
            self._folder(parent, 0o755)
        self._names.add(entry.name)
        self._tar.addfile(entry, content)


def _inside(path: Path) -> str:
    """Return where `path` lies in the image: never below a link of a merged /usr."""
    first, _, rest = str(path).lstrip("/").partition("/")
    return f"usr/{first}/{rest}" if first in _MERGED else f"{first}/{rest}"


def _libraries(path: Path) -> Iterator[Path]:
    """Give the libraries that the loader takes for a program or library, and the loader."""
    listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False)
    for match in _LIBRARY.finditer(listed.stdout):
        yield Path(match[1])


def write_image(
    target: Path, name: str, layer: Layer, env: Mapping[str, str], entry: Iterable[str] = ()
) -> None:
    """Write `layer` as the image `name`, in the format of `docker save`."""
    content = layer.close()
    config = {
        "architecture": _ARCHITECTURES[os.uname().machine],
        "os": "linux",
        "created": _EPOCH,
        "config": {
            "Env": [f"{key}={value}" for key, value in env.items()],
            "Entrypoint": list(entry),
        },
        "rootfs": {"type": "layers", "diff_ids": [_digest(content)]},
        "history": [{"created": _EPOCH}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        _append(archive, "config.json", _json(config))
        _append(archive, "layer.tar", content)
        _append(archive, "manifest.json", _json(manifest))


def write_pause_image(target: Path, name: str, folder: Path) -> None:
    """Write the image of what holds a pod's namespaces; `folder` is for its program."""
    source, program = folder / "pause.c", folder / "pause"
    source.write_text(_PAUSE)
    subprocess.run(["gcc", "-Os", "-static", "-o", str(program), str(source)], check=True)
    layer = Layer()
    layer.add(program)
    write_image(target, name, layer, {}, [str(program)])


def add_python(layer: Layer, interpreter: Path) -> None:
    """Add a virtual environment, given by its interpreter, and the Python that it is made of."""
    code = "import sys, sysconfig as s; print(s.get_path('stdlib'), s.get_path('purelib'))"
    answer = subprocess.run(
        [str(interpreter), "-c", code], capture_output=True, text=True, check=True
    )
    library, packages = map(Path, answer.stdout.split())
    layer.add(interpreter)
    layer.add(interpreter.with_name("python3"))
    layer.add(interpreter.parents[1] / "pyvenv.cfg")
    layer.add(library)
    layer.add(packages)


def _append(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
