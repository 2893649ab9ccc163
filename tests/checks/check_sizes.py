#!/usr/bin/env python3
"""Files have at most 600 lines and functions, in C and Python, at most 60.

Run from the top folder without arguments. Prints a line for each file or function that is longer
and exits 1, else prints nothing and exits 0. A C function is what stands between a `{` and the
next `}` in the first column, which clang-format guarantees.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("src", "include", "tests", "python-shim", "benchmarks")
SUFFIXES = (".c", ".h", ".py", ".sh")
FILE_LINES = 600
FUNCTION_LINES = 60


def c_functions(lines: list[str]) -> Iterator[tuple[int, str, int]]:
    """Yield (line number, name, number of lines) of each function body of a C file."""
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start is not None:
            yield start, c_name(lines, start - 2), number - start + 1
            start = None


def c_name(lines: list[str], index: int) -> str:
    """Return the function's name from the declaration that ends at `lines[index]`."""
    while index > 0 and lines[index].startswith((" ", "\t")):
        index -= 1
    return lines[index].split("(")[0].split(" ")[-1].lstrip("*")


def python_functions(path: Path) -> Iterator[tuple[int, str, int]]:
    """Yield (line number, name, number of lines) of each function of a Python file."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield node.lineno, node.name, node.end_lineno - node.lineno + 1


def complaints(path: Path) -> Iterator[str]:
    """Yield a line of text for everything in the file that is too long."""
    lines = path.read_text().splitlines()
    if len(lines) > FILE_LINES:
        yield f"{path}: {len(lines)} lines ({FILE_LINES})"
    if path.suffix == ".sh":
        return
    functions = python_functions(path) if path.suffix == ".py" else c_functions(lines)
    for number, name, count in functions:
        if count > FUNCTION_LINES:
            yield f"{path}:{number}: {name} has {count} lines ({FUNCTION_LINES})"


def project_files() -> list[Path]:
    """Return the source files that git tracks or would track."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "--", *FOLDERS]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    paths = [Path(name) for name in sorted(set(names.splitlines()))]
    return [path for path in paths if path.suffix in SUFFIXES and path.is_file()]


def main() -> int:
    """Check every source file of the project."""
    found = [line for path in project_files() for line in complaints(path)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
