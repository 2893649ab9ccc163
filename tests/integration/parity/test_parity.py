"""Unchanged apps under Celery's prefork worker and under Petiole: the same client, field by field.

parity_run.py runs both and says how; parity_differences.py has what may differ.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("PARITY_URL", "redis://")  # nothing is sent from here

import parity_scenarios
import parity_scenarios_canvas
from parity_compare import Mismatch, Where, compare, missing, unexpected
from parity_differences import DIFFERENCES
from parity_run import KINDS, Environment, environments, rows_for, run_kinds
from parity_scene import SCENARIOS
from parity_transcript import WORKER_FEATURES, normal, read_log
from petiole_worker import TOP

pytestmark = pytest.mark.petiole_only
assert parity_scenarios and parity_scenarios_canvas
FEATURES = (*SCENARIOS, *WORKER_FEATURES)
Found = dict[str, list[Mismatch]]
MOST_SHOWN = 40


@pytest.fixture(scope="session")
def find(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Environment, str], Found]:
    """Return a function that gives what differs with an environment, running each once."""
    known: dict[Environment, dict[str, Any]] = {}

    def look(environment: Environment, kind: str) -> Found:
        if environment not in known:
            folder = tmp_path_factory.mktemp("parity")
            known[environment] = run_kinds(KINDS, environment.interpreter(), folder)
        celery, other = known[environment]["celery"], known[environment][kind]
        return {name: list(compare(each, other.get(name))) for name, each in celery.items()}

    return look


@pytest.fixture(params=environments(), ids=str)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    """Return each environment in turn."""
    return request.param


def shown(where: Where) -> str:
    """Return what a row of the table looks for."""
    fields = dataclasses.asdict(where)
    return ", ".join(f"{key} {value!r}" for key, value in fields.items() if value)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("feature", FEATURES)
def test_feature(
    feature: str, kind: str, environment: Environment, find: Callable[..., Found]
) -> None:
    found = find(environment, kind)
    rows = rows_for(kind, environment.celery)
    others = unexpected(feature, found[feature], rows)
    lines = [f"{len(others)} differences", *map(str, others[:MOST_SHOWN])]
    assert not others, "\n".join(lines)
    expected = [row for row in rows if feature in row.features]
    absent = [row for row, name in missing(found, expected) if name == feature]
    assert not absent, "expected, but not there:\n" + "\n".join(map(shown, absent))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_difference_of_the_table_occurs(
    kind: str, environment: Environment, find: Callable[..., Found]
) -> None:
    found = find(environment, kind)
    rows = [row for row in rows_for(kind, environment.celery) if not row.features]
    assert not [shown(row) for row, _ in missing(found, rows)]


def test_the_readme_has_the_table() -> None:
    text = (TOP / "README.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.MULTILINE))
    for difference in DIFFERENCES:
        assert rows.get(difference.name) == difference.reason


def test_the_features_of_the_table_are_there() -> None:
    named = {feature for each in DIFFERENCES for row in each.where for feature in row.features}
    assert named <= set(FEATURES)


def test_what_must_differ_is_normal() -> None:
    label = {"0d5a1c9e-54a3-4d2e-8f11-0123456789ab": "mine"}
    text = (
        "0d5a1c9e-54a3-4d2e-8f11-0123456789ab 0d5a1c9e-54a3-4d2e-8f11-0123456789ac "
        "2026-11-28T18:00:00.123456+00:00 gen12@host pid:77 Job: 3. ForkPoolWorker-12 "
        "succeeded in 0.0012s 0x7f0011223344"
    )
    assert normal({"pid": 7, "runtime": 0.1, "text": text, "other": 7}, label) == {
        "pid": "<pid>",
        "runtime": "<seconds>",
        "text": "<mine> <uuid> <time>+00:00 gen<pid>@host pid:<pid> Job: <number>. "
        "ForkPoolWorker-<number> succeeded in <seconds>s 0x<address>",
        "other": 7,
    }


def test_a_log_is_read_entry_by_entry() -> None:
    head = "[2026-11-28 18:00:00,123: "
    text = f"banner\n{head}INFO/MainProcess] one\n"
    text += f"{head}ERROR/ForkPoolWorker-1] two\n more\nworker: x\n"
    assert [entry.shown() for entry in read_log(text)] == [
        "INFO/MainProcess] one",
        "ERROR/ForkPoolWorker-1] two\n more",
    ]


@pytest.mark.parametrize(
    ("one", "other", "paths"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": True}, ["a"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a/1"]),
        ({"a": 1}, {"b": 1}, ["a", "b"]),
        ([{"kind": "x"}, {"kind": "y"}], [{"kind": "y"}], ["/0"]),
        ([{"kind": "x", "v": 1}], [{"kind": "x", "v": 2}], ["/0/v"]),
        (float("nan"), float("nan"), []),
    ],
)
def test_compares_field_by_field(one: Any, other: Any, paths: list[str]) -> None:
    assert [each.path for each in compare(one, other)] == paths


def test_a_row_that_covers_nothing_is_missing() -> None:
    rows = [Where("^a$"), Where("^b$", features=("f", "g"))]
    found = {"f": [Mismatch("a", 1, 2), Mismatch("c", 1, 2)], "g": [Mismatch("b", 1, 2)]}
    assert unexpected("f", found["f"], rows) == [Mismatch("c", 1, 2)]
    assert missing(found, rows) == [(rows[1], "f")]
