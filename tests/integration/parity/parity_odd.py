"""Unusual results and exceptions."""

from __future__ import annotations

from typing import Any


class Odd(Exception):
    """An exception with unusual arguments."""


class Picky(Exception):
    """One that cannot be made of its args, as pickle does."""

    def __init__(self, code: int, *, hint: str) -> None:
        """Keep both."""
        super().__init__(f"{code}: {hint}")
        self.code = code
        self.hint = hint


class Unshowable(Exception):
    """One whose text cannot be made."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError("no text")

    __repr__ = __str__


class Outer:
    """A class with an exception in it."""

    class Inner(Exception):
        """An exception with a dotted name."""


def result(which: str) -> Any:
    """Return something unusual."""
    return {
        "set": {1},
        "tuple": (1, (2, 3)),
        "bytes": b"\xff\x00",
        "nan": float("nan"),
        "keys": {2: "a", None: "b", True: "c"},
        "unicode": "ö € \U0001f600 \ud800"[:5],
        "surrogate": "\ud800",
        "large": "x" * 300_000,
        "exception": ValueError("returned"),
        "generator": (number for number in range(2)),
    }[which]


def fail(which: str) -> None:
    """Raise something unusual."""
    if which == "cause":
        try:
            raise KeyError("first")
        except KeyError as error:
            raise Odd("second") from error
    error = {
        "picky": lambda: Picky(3, hint="odd"),
        "unshowable": Unshowable,
        "inner": lambda: Outer.Inner("deep"),
        "lambda": lambda: Odd(lambda: None),
        "args": lambda: Odd(1, "two", [3], {"four": 4}, b"five", {6}, None, object),
        "nested": lambda: Odd(ValueError("inside")),
        "local": lambda: type("Local", (Exception,), {})("made here"),
        "unicode": lambda: Odd("ö \U0001f600 \ud800\n"),
        "os": lambda: FileNotFoundError(2, "No such file", "/nowhere"),
        "decode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        "stop": lambda: StopIteration(5),
        "recursion": lambda: RecursionError("deep"),
    }[which]()
    raise error
