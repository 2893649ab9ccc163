"""Compares two transcripts field by field, and says which differences are expected."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MISSING = "<nothing>"
NOTHING = f"^{MISSING}$"
THERE = "^there$"
NEWEST, OLDEST = ("newest",), ("oldest",)  # names of environments
LOCAL, BOTH = ("local",), ("process", "local")  # kinds of workers


@dataclass(frozen=True)
class Mismatch:
    """One field that differs: where it is, and what stands there in each transcript."""

    path: str
    celery: Any
    petiole: Any

    def __str__(self) -> str:
        """Return it as two lines under the path."""
        left, right = (
            each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)
            for each in (self.celery, self.petiole)
        )
        return f"{self.path}\n    celery:  {left}\n    petiole: {right}"


@dataclass(frozen=True)
class Where:
    """Where a difference shows: regular expressions for a Mismatch, all of which must be found.

    `celery` and `petiole` are looked for in the values as JSON. `features` are those in which it
    must occur; with none it must occur in some feature. `celeries` are the names of the
    environments whose Celery has it.
    """

    path: str
    celery: str = ""
    petiole: str = ""
    features: tuple[str, ...] = ()
    celeries: tuple[str, ...] = ("newest", "oldest")

    def covers(self, feature: str, mismatch: Mismatch) -> bool:
        """Return whether a mismatch of a feature is here."""
        return (
            (not self.features or feature in self.features)
            and re.search(self.path, mismatch.path) is not None
            and re.search(self.celery, as_text(mismatch.celery)) is not None
            and re.search(self.petiole, as_text(mismatch.petiole)) is not None
        )


@dataclass(frozen=True)
class Difference:
    """A difference that is expected, in the words of the README, of some kinds of worker."""

    name: str
    reason: str
    where: tuple[Where, ...]
    kinds: tuple[str, ...] = ("process",)


@dataclass(frozen=True)
class LeftOut:
    """What is not compared with some kinds of worker, and why, in the words of the README."""

    name: str
    reason: str
    scenarios: tuple[str, ...]
    kinds: tuple[str, ...]


def as_text(value: Any) -> str:
    """Return a value as the expressions of a Difference see it."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def compare(celery: Any, petiole: Any, path: str = "") -> Iterator[Mismatch]:
    """Return every field that differs; of a whole that one of them lacks, the whole."""
    if isinstance(celery, dict) and isinstance(petiole, dict):
        for key in sorted({*celery, *petiole}):
            here = f"{path}/{key}" if path else key
            yield from compare(celery.get(key, MISSING), petiole.get(key, MISSING), here)
    elif isinstance(celery, list) and isinstance(petiole, list):
        yield from _compare_lists(celery, petiole, path)
    elif as_text(celery) != as_text(petiole):
        yield Mismatch(path, celery, petiole)


def _kind_of(value: Any) -> str:
    """Return what tells that two elements of lists belong together."""
    if isinstance(value, dict):
        return str(value.get("kind", value.get("status", sorted(value))))
    return "list" if isinstance(value, list) else as_text(value)


def _compare_lists(celery: list[Any], petiole: list[Any], path: str) -> Iterator[Mismatch]:
    """Compare elements that stand in the same order; others are one side's alone."""
    kinds = [list(map(_kind_of, each)) for each in (celery, petiole)]
    matcher = difflib.SequenceMatcher(None, kinds[0], kinds[1], autojunk=False)
    for what, begin, end, other_begin, other_end in matcher.get_opcodes():
        left, right = celery[begin:end], petiole[other_begin:other_end]
        if what == "equal" or len(left) == len(right):
            for number, (one, other) in enumerate(zip(left, right, strict=True), begin):
                yield from compare(one, other, f"{path}/{number}")
            continue
        for number, one in enumerate(left, begin):
            yield Mismatch(f"{path}/{number}", one, MISSING)
        for number, other in enumerate(right, other_begin):
            yield Mismatch(f"{path}/{number}", MISSING, other)


def broken(transcript: Mapping[str, Any], feature: str) -> str:
    """Return the traceback of a scenario that could not be played, empty when it was."""
    seen = transcript[feature].get("seen")
    return str(seen["broken"]) if isinstance(seen, dict) and "broken" in seen else ""


def unexpected(
    feature: str, mismatches: Iterable[Mismatch], table: Iterable[Where]
) -> list[Mismatch]:
    """Return the mismatches of a feature that nothing in the table covers."""
    rows = list(table)
    return [each for each in mismatches if not any(row.covers(feature, each) for row in rows)]


def missing(
    found: Mapping[str, Iterable[Mismatch]], table: Iterable[Where]
) -> list[tuple[Where, str]]:
    """Return what in the table did not occur, with the feature in which it should have."""
    absent = []
    for row in table:
        seen = {
            feature
            for feature, mismatches in found.items()
            if any(row.covers(feature, each) for each in mismatches)
        }
        absent += [(row, each) for each in row.features if each not in seen]
        if not row.features and not seen:
            absent.append((row, "any feature"))
    return absent
