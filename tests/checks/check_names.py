#!/usr/bin/env python3
"""Every source file has a name of its own, and that name begins its public symbols.

Run from the top folder, without arguments, after the release build. Prints a line for each name
that breaks the rule, and for each entry of names_allowed.txt ("folder/file symbol" a line, # starts
a comment) that is not needed; exits 1 then, else 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ALLOWED = Path(__file__).with_name("names_allowed.txt")


def read_allowed() -> set[tuple[str, str]]:
    """Return the (folder/file, symbol) pairs of the list of exceptions."""
    lines = (line.partition("#")[0].split() for line in ALLOWED.read_text().splitlines())
    return {(words[0], words[1]) for words in lines if words}


def shared_names() -> Iterator[str]:
    """Yield a line for each file name that two folders of src/ use."""
    places = defaultdict(set)
    for path in Path("src").glob("*/*.[ch]"):
        places[path.stem].add(path.parent)
    for name, folders in sorted(places.items()):
        if len(folders) > 1:
            yield f"{name}: in {', '.join(str(folder) for folder in sorted(folders))}"


def public_symbols(source: Path, objects: Path) -> list[str]:
    """Return the external functions and variables that the object of `source` defines."""
    path = objects / source.with_suffix(".o")
    command = ["nm", "--extern-only", "--defined-only", "--format=posix", str(path)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split()[0] for line in answer.splitlines()]


def family(source: Path) -> list[str]:
    """Return the names that may begin a symbol of `source`.

    They are its own, and those of the modules that it is a part of: pipeline_intake.c is a part of
    pipeline.c, whose header tells of both.
    """
    words = source.stem.split("_")
    heads = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
    return [head for head in heads if source.with_name(f"{head}.h").exists()] + [source.stem]


def foreign_symbols(objects: Path) -> Iterator[str]:
    """Yield a line for each public symbol that does not begin with its file's name."""
    unused = read_allowed()
    for source in sorted(Path("src").glob("*/*.c")):
        place = f"{source.parent.name}/{source.stem}"
        for symbol in public_symbols(source, objects):
            if (place, symbol) in unused:
                unused.discard((place, symbol))
            elif symbol not in family(source) and not symbol.startswith(
                tuple(f"{name}_" for name in family(source))
            ):
                yield f"{source}: public symbol {symbol} does not begin with {source.stem}_"
    for place, symbol in sorted(unused):
        yield f"{ALLOWED.name}: {place} {symbol} is not needed"


def main() -> int:
    """Check the names of src/ and of the release build's objects."""
    objects = Path(os.environ.get("BUILD", "build")) / "release"
    try:
        found = [*shared_names(), *foreign_symbols(objects)]
    except subprocess.CalledProcessError as error:
        print(f"build first: {error.stderr.strip()}")
        return 1
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
