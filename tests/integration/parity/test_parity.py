"""Unchanged apps under Celery's prefork worker and under Petiole: the same client, field by field.

parity_run.py runs both and says how; parity_differences.py has what may differ.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any

import pytest

os.environ.setdefault("PARITY_URL", "redis://")  # nothing is sent from here

import parity_scenarios
import parity_scenarios_canvas
from parity_compare import Mismatch, Where, broken, compare, missing, unexpected
from parity_differences import DIFFERENCES, LEFT_OUT
from parity_differences_local import LOCAL_DIFFERENCES
from parity_run import Environment, environments, rows_for, run_kinds, scenarios_of
from parity_scene import SCENARIOS
from parity_transcript import WORKER_FEATURES, normal, read_log
from petiole_worker import TOP

pytestmark = pytest.mark.petiole_only
assert parity_scenarios and parity_scenarios_canvas
FEATURES = (*SCENARIOS, *WORKER_FEATURES)
Transcript = dict[str, Any]
Found = dict[str, list[Mismatch]]
MOST_SHOWN = 40


def kinds(environment: Environment) -> list[str]:
    """Return what is compared with Celery: a container for each task is for the newest alone."""
    is_release = os.environ.get("PETIOLE_VARIANT", "release") == "release"
    return (
        ["process", "local"] if is_release and environment == Environment("newest") else ["process"]
    )


PAIRS = [(kind, environment) for environment in environments() for kind in kinds(environment)]
CASES = [
    pytest.param(feature, kind, environment, id=f"{feature}-{kind}-{environment}")
    for kind, environment in PAIRS
    for feature in (*(scenarios_of(kind) or SCENARIOS), *WORKER_FEATURES)
]


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Environment, str], Transcript]:
    """Return a function that gives the transcript of a kind of worker, running each once.

    A run that failed is not repeated: it fails whoever asks for it.
    """
    known: dict[tuple[Environment, str], Transcript | Exception] = {}

    def run(environment: Environment, *names: str) -> None:
        runs: dict[str, Transcript] | dict[str, Exception]
        try:
            runs = run_kinds(names, environment.interpreter(), tmp_path_factory.mktemp("parity"))
        except Exception as error:  # told by `look`
            runs = dict.fromkeys(names, error)
        known.update({(environment, name): each for name, each in runs.items()})

    def look(environment: Environment, kind: str) -> Transcript:
        if (environment, "celery") not in known:
            run(environment, "celery", "process")
        if (environment, kind) not in known:
            run(environment, kind)  # by itself: it takes all of the machine
        found = known[environment, kind]
        if isinstance(found, Exception):
            raise AssertionError(f"the run of {kind} with {environment} failed") from found
        return found

    return look


def differences(play: Callable[..., Transcript], environment: Environment, kind: str) -> Found:
    """Return in what a kind of worker differs from Celery's."""
    celery = play(environment, "celery")
    each = play(environment, kind)
    return {name: list(compare(celery[name], each[name])) for name in each}


def shown(where: Where) -> str:
    """Return what a row of the table looks for."""
    fields = dataclasses.asdict(where)
    return ", ".join(f"{key} {value!r}" for key, value in fields.items() if value)


@pytest.mark.parametrize(("feature", "kind", "environment"), CASES)
def test_feature(
    feature: str, kind: str, environment: Environment, play: Callable[..., Transcript]
) -> None:
    for each in ("celery", kind):
        text = broken(play(environment, each), feature)
        assert not text, f"it cannot be played against {each}:\n{text}"
    found = differences(play, environment, kind)
    rows = rows_for(kind, environment.celery)
    others = unexpected(feature, found[feature], rows)
    lines = [f"{len(others)} differences", *map(str, others[:MOST_SHOWN])]
    assert not others, "\n".join(lines)
    expected = [row for row in rows if feature in row.features]
    absent = [row for row, name in missing(found, expected) if name == feature]
    assert not absent, "expected, but not there:\n" + "\n".join(map(shown, absent))


@pytest.mark.parametrize(("kind", "environment"), PAIRS, ids=str)
def test_every_difference_of_the_table_occurs(
    kind: str, environment: Environment, play: Callable[..., Transcript]
) -> None:
    found = differences(play, environment, kind)
    rows = [row for row in rows_for(kind, environment.celery) if not row.features]
    assert not [shown(row) for row, _ in missing(found, rows)]


def test_the_readme_has_the_tables() -> None:
    text = (TOP / "README.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.MULTILINE))
    for each in (*DIFFERENCES, *LEFT_OUT, *LOCAL_DIFFERENCES):
        assert rows.get(each.name) == each.reason
    shared = " ".join(re.findall(r"^Of the rows above, (.+?) hold", text, re.MULTILINE | re.DOTALL))
    names = re.findall(r'"(.+?)"', " ".join(shared.split()))
    assert names == [each.name for each in DIFFERENCES if "local" in each.kinds]


def test_the_features_of_the_tables_are_there() -> None:
    table = (*DIFFERENCES, *LOCAL_DIFFERENCES)
    named = {feature for each in table for row in each.where for feature in row.features}
    assert named | {name for each in LEFT_OUT for name in each.scenarios} <= set(FEATURES)


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


def test_a_scenario_that_cannot_be_played_is_broken() -> None:
    transcript = {
        "f": {"seen": {"broken": "why"}},
        "g": {"seen": [1]},
        "worker_log": {"x": "there"},
    }
    assert [broken(transcript, name) for name in transcript] == ["why", "", ""]


def test_a_row_that_covers_nothing_is_missing() -> None:
    rows = [Where("^a$"), Where("^b$", features=("f", "g"))]
    found = {"f": [Mismatch("a", 1, 2), Mismatch("c", 1, 2)], "g": [Mismatch("b", 1, 2)]}
    assert unexpected("f", found["f"], rows) == [Mismatch("c", 1, 2)]
    assert missing(found, rows) == [(rows[1], "f")]
