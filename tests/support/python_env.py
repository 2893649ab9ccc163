#!/usr/bin/env python3
"""Make, once, the virtual environment that a test suite needs and print its Python.

    python3 tests/support/python_env.py NAME      NAME is `newest`, `oldest`, `demo` or `bench`

Prints the absolute path of the environment's interpreter on stdout, progress on stderr. Exits 0,
or 1 with one sentence when the environment could not be made. `requirements-NAME.txt` beside this
file pins every package in it.

An environment lives in `${PETIOLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/petiole}/python/` under a
name that contains a digest of the pins and of the interpreter that runs this script, so another
pin or another Python makes another environment and nothing is ever changed in place. Callers at
the same time wait for the first one; an environment that was left half-made is made again.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("newest", "oldest", "demo", "bench")
MARKER = ".complete"
INSTALL_TIMEOUT_S = 1800


class PythonEnvError(Exception):
    """An environment could not be made; the text says why."""


def requirements_path(name: str) -> Path:
    """Return the file that pins the packages of environment `name`."""
    return Path(__file__).resolve().parent / f"requirements-{name}.txt"


def cache_dir() -> Path:
    """Return the folder of slow things, by Petiole's and the XDG variables; it may not exist."""
    if own := os.environ.get("PETIOLE_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "petiole"
    return Path.home() / ".cache" / "petiole"


def environment_path(name: str) -> Path:
    """Return where environment `name` of this interpreter belongs; it may not exist yet."""
    digest = hashlib.sha256()
    digest.update(requirements_path(name).read_bytes())
    digest.update(f"{sys.version}\0{sys.base_prefix}".encode())
    return cache_dir() / "python" / f"{name}-{digest.hexdigest()[:16]}"


def ensure(name: str) -> Path:
    """Return the interpreter of environment `name`, making the environment when it is missing.

    Raises:
        PythonEnvError: `name` is unknown, or creating it failed.
    """
    if name not in NAMES:
        raise PythonEnvError(f"unknown environment {name!r}; known are {', '.join(NAMES)}")
    target = environment_path(name)
    interpreter = target / "bin" / "python"
    if (target / MARKER).exists():
        return interpreter
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / MARKER).exists():
            _create(name, target, interpreter)
    return interpreter


def _create(name: str, target: Path, interpreter: Path) -> None:
    """Build the environment in its final place: scripts in it name their interpreter's path."""
    print(f"python_env: making {name} in {target}", file=sys.stderr)
    shutil.rmtree(target, ignore_errors=True)
    # The base interpreter: an environment made from within another one must not depend on that.
    base = getattr(sys, "_base_executable", None) or sys.executable
    _run([base, "-m", "venv", str(target)], hint="on Debian: apt-get install python3-venv")
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "install", "--quiet", "--requirement", str(requirements_path(name))])
    _run([*pip, "check"])
    (target / MARKER).touch()


def _run(command: list[str], hint: str = "") -> None:
    """Run `command` with its output on stderr; raise PythonEnvError when it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
            timeout=INSTALL_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PythonEnvError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        suffix = f" ({hint})" if hint else ""
        raise PythonEnvError(f"{' '.join(command)} ended with {done.returncode}{suffix}")


def main(arguments: list[str] | None = None) -> int:
    """Print the interpreter of the environment named on the command line."""
    parser = argparse.ArgumentParser(description="Make a test environment and print its Python.")
    parser.add_argument("name", choices=NAMES)
    name = parser.parse_args(arguments).name
    try:
        print(ensure(name))
    except PythonEnvError as error:
        print(f"python_env: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
