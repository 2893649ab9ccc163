from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import petiole
from harness import SHIM, Interpreter


def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("pyproject.toml", "README.md", "src/petiole"):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-R", str(SHIM / name), str(target)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"petiole-{petiole.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    modules = sorted(name for name in names if ".dist-info/" not in name)
    assert modules == sorted(
        f"petiole/{path.name}" for path in (SHIM / "src/petiole").iterdir() if path.is_file()
    )
    assert "petiole/py.typed" in modules


def test_routing_needs_nothing_but_celery(oldest: Interpreter) -> None:
    done = oldest.run("-W", "error::SyntaxWarning", "-c", "import petiole.routing, petiole.run")
    assert done.returncode == 0, done.stderr
