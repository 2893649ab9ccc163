#!/usr/bin/env python3
"""Every setting that the worker knows is in the README, and Petiole's own are in the ConfigMap too.

The settings are the rows `SETTING(name, ...)` of src/worker/settings_table.h. Run from the top
folder without arguments. Prints a line for each missing setting and exits 1, else exits 0; a tree
without the table has nothing to compare.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TABLE = Path("src/worker/settings_table.h")
README = Path("README.md")
CONFIG_MAP = Path("k8s/base/configmap.yaml")
ROW = re.compile(r'^\s*SETTING\w*\(\s*"?([a-z][a-z0-9_]*)', re.MULTILINE)
OWN = re.compile(
    r"^(kubernetes_|tenant_|local_|native_)|^(worker_http_address|worker_lookahead|tasks)$"
)


def settings() -> list[str]:
    """Return the names of the table's rows in their order."""
    return ROW.findall(TABLE.read_text())


def missing(names: list[str], path: Path) -> list[str]:
    """Return a line for each of `names` that is not a word of the file."""
    words = set(re.findall(r"\w+", path.read_text())) if path.exists() else set()
    return [f"{path}: does not mention the setting {name}" for name in names if name not in words]


def main() -> int:
    """Compare the table with what operators read."""
    if not TABLE.exists():
        return 0
    names = settings()
    found = [] if names else [f"{TABLE}: has no row of the form SETTING(name, ...)"]
    found += missing(names, README)
    found += missing([name for name in names if OWN.match(name)], CONFIG_MAP)
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
