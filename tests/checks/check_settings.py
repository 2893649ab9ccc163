#!/usr/bin/env python3
"""The README's tables of settings are the worker's, and Petiole's own are in the ConfigMap too.

The settings are the rows `SETTING(name, ...)` of src/worker/settings_table.h; a comment line that
begins with "Petiole's" or "Celery's" says whose the rows below it are. Run from the top folder
without arguments. Prints a line for each setting that is missing or told otherwise and exits 1,
else exits 0; a tree without the table has nothing to compare.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TABLE = Path("src/worker/settings_table.h")
README = Path("README.md")
CONFIG_MAP = Path("k8s/base/configmap.yaml")
ROW = re.compile(r'^SETTING\w*\(\s*"?([a-z][a-z0-9_]*)')
WHOLE_ROW = re.compile(r'^SETTING\((\w+), (\w+), "((?:[^"\\]|\\.)*)", "((?:[^"\\]|\\.)*)"\)$', re.M)
ACCEPTED = "\nAccepted, without effect here"
SECTION = re.compile(r"^/\* (?P<owner>Petiole's|Celery's)")


def settings() -> tuple[list[str], list[str]]:
    """Return the names of all rows of the table, and of those that are Petiole's own."""
    every: list[str] = []
    own: list[str] = []
    owner = None
    for line in TABLE.read_text().splitlines():
        if section := SECTION.match(line):
            owner = section["owner"]
        elif row := ROW.match(line):
            every.append(row[1])
            if owner == "Petiole's":
                own.append(row[1])
    return every, own


def missing(names: list[str], path: Path) -> list[str]:
    """Return a line for each of `names` that is not a word of the file."""
    words = set(re.findall(r"\w+", path.read_text())) if path.exists() else set()
    return [f"{path}: does not mention the setting {name}" for name in names if name not in words]


def untold() -> list[str]:
    """Return a line for each setting whose row is not in the table of the README that it fits."""
    with_effect, _, accepted = README.read_text().partition(ACCEPTED)
    lines = {False: set(with_effect.splitlines()), True: set(accepted.splitlines())}
    found = []
    for name, kind, default, meaning in WHOLE_ROW.findall(TABLE.read_text()):
        row = f"| `{name}` | `{default}` | {meaning} |".replace('\\"', '"')
        if row not in lines[kind == "ACCEPTED"]:
            found.append(f"{README}: the table lacks the row: {row}")
    return found


def main() -> int:
    """Compare the table with what operators read."""
    if not TABLE.exists():
        return 0
    every, own = settings()
    found = [] if every and own else [f"{TABLE}: lacks SETTING(name, ...) rows or section comments"]
    found += missing(every, README)
    found += untold()
    found += missing(own, CONFIG_MAP)
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
