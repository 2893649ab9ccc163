#!/usr/bin/env python3
"""Make, once, the virtual environment that a test suite needs and print its Python.

    python3 tests/support/python_env.py NAME [PYTHON]

NAME is one of the files `requirements-NAME.txt` beside this one, which pins every package in it:
`newest`, `oldest` … PYTHON is another interpreter than the one that runs this. Prints the absolute
path of the environment's interpreter on stdout, progress on stderr. Exits 0, or 1 with one sentence
when the environment could not be made.

An environment lives in `${PETIOLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/petiole}/python/` under a
name that contains a digest of the pins and of the interpreter that it is made with, so another
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

NAMES = ("newest", "oldest", "demo", "bench", "parity-oldest", "parity-newest")
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


def identity(base: Path | None) -> str:
    """Return what tells interpreters apart: of `base`, or of the one that runs this.

    Raises:
        OSError, subprocess.SubprocessError: `base` cannot be run.
    """
    if base is None:
        return f"{sys.version}\0{sys.base_prefix}"
    program = "import sys; print(sys.version, sys.base_prefix, sep='\\0', end='')"
    done = subprocess.run([base, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout


def find_python(version: str) -> Path | None:
    """Return the interpreter of a version such as "3.13": `python3.13` on the PATH, or pyenv's."""
    for command in ([f"python{version}", "-c", "import sys; print(sys.executable)"], None):
        try:
            if command is None:
                bare = _output(["pyenv", "versions", "--bare"]).split()
                patches = [name for name in bare if name.rpartition(".")[0] == version]
                if not patches:
                    return None
                return Path(_output(["pyenv", "prefix", patches[-1]])) / "bin" / "python"
            return Path(_output(command))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _output(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.strip()


def environment_path(name: str, base: Path | None = None) -> Path:
    """Return where environment `name` of an interpreter belongs; it may not exist yet."""
    digest = hashlib.sha256()
    digest.update(requirements_path(name).read_bytes())
    digest.update(identity(base).encode())
    return cache_dir() / "python" / f"{name}-{digest.hexdigest()[:16]}"


def ensure(name: str, base: Path | None = None) -> Path:
    """Return the interpreter of environment `name`, making the environment when it is missing.

    `base` is the interpreter that it is made with, by default the one that runs this.

    Raises:
        PythonEnvError: `name` is unknown, or creating it failed.
    """
    if name not in NAMES:
        raise PythonEnvError(f"unknown environment {name!r}; known are {', '.join(NAMES)}")
    try:
        target = environment_path(name, base)
    except (OSError, subprocess.SubprocessError) as error:
        raise PythonEnvError(f"{base} cannot be run: {error}") from error
    interpreter = target / "bin" / "python"
    if (target / MARKER).exists():
        return interpreter
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / MARKER).exists():
            _create(name, target, interpreter, base)
    return interpreter


def _create(name: str, target: Path, interpreter: Path, base: Path | None) -> None:
    """Build the environment in its final place: scripts in it name their interpreter's path."""
    print(f"python_env: making {name} in {target}", file=sys.stderr)
    shutil.rmtree(target, ignore_errors=True)
    # The base interpreter: an environment made from within another one must not depend on that.
    own = getattr(sys, "_base_executable", None) or sys.executable
    _run(
        [str(base or own), "-m", "venv", str(target)],
        hint="on Debian: apt-get install python3-venv",
    )
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
    parser.add_argument("python", nargs="?", type=Path)
    options = parser.parse_args(arguments)
    try:
        print(ensure(options.name, options.python))
    except PythonEnvError as error:
        print(f"python_env: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
