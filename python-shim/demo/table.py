"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def render(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str]) -> str:
    """Return the rows below their headings; the columns in `right` are aligned to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = ["-" * width for width in widths]

    def laid_out(line: Sequence[str]) -> str:
        cells = [
            text.rjust(width) if name in right else text.ljust(width)
            for name, text, width in zip(head, line, widths)
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(laid_out(line) for line in [head, rule, *rows])
