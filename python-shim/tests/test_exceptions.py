from __future__ import annotations

import inspect
import json
import pickle

import pytest
import redis
from celery.backends.base import Backend

from harness import Interpreter
from petiole import exceptions
from petiole.exceptions import PetioleError

CLASSES = sorted(
    (
        value
        for value in vars(exceptions).values()
        if inspect.isclass(value) and issubclass(value, PetioleError) and value is not PetioleError
    ),
    key=lambda cls: cls.__name__,
)
CATEGORIES = [
    "OOMKilled",
    "Evicted",
    "Preempted",
    "NodeLost",
    "DeadlineExceeded",
    "ImagePullError",
    "InvalidImage",
    "CreateContainerError",
    "ContainerConfigError",
    "Unschedulable",
    "QuotaExceeded",
    "PodSecurityViolation",
    "AdmissionDenied",
    "CrashExit",
    "Signalled",
    "UserException",
    "JobDeleted",
    "Cancelled",
    "Unknown",
]
OTHERS = [
    "TenantMismatch",
    "MessageTooLarge",
    "JobNameConflict",
    "ResultLost",
    "ResultTooLarge",
    "TemplateError",
    "CanvasUnsupported",
    "MessageUnsupported",
]
DETAILS = {
    "category": "OOMKilled",
    "subreason": None,
    "exit_code": 137,
    "pod": "train-x7k2p",
    "container": "main",
}


def test_all_names_are_there() -> None:
    assert [cls.__name__ for cls in CLASSES] == sorted(CATEGORIES + OTHERS)


@pytest.mark.parametrize("cls", CLASSES)
def test_fields(cls: type[PetioleError]) -> None:
    error = cls("The container ran out of memory.", DETAILS)
    assert str(error) == "The container ran out of memory."
    assert error.args == ("The container ran out of memory.", DETAILS)
    assert (error.category, error.subreason, error.exit_code) == ("OOMKilled", None, 137)
    assert (error.pod, error.container) == ("train-x7k2p", "main")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made right here.
    assert type(copy) is cls
    assert copy.args == error.args


def test_details_may_be_missing_or_odd() -> None:
    assert exceptions.Evicted().category == "Evicted"
    assert exceptions.Evicted("x", {"exit_code": True}).exit_code is None
    assert exceptions.Evicted("x", "odd").details == {}  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", CLASSES)
def test_celery_finds_the_class(cls: type[PetioleError]) -> None:
    from celery import Celery  # noqa: PLC0415 - only this test needs an app.

    backend = Backend(Celery("found", set_as_current=False))
    stored = {
        "exc_type": cls.__name__,
        "exc_module": "petiole.exceptions",
        "exc_message": ["sentence", DETAILS],
    }
    found = backend.exception_to_python(stored)
    assert type(found) is cls
    assert backend.prepare_exception(found, "json") == {**stored, "exc_message": tuple(found.args)}


@pytest.mark.parametrize("has_package", [True, False])
def test_client_raises(
    python: Interpreter, results: redis.Redis, backend_url: str, has_package: bool
) -> None:
    meta = {
        "status": "FAILURE",
        "result": {
            "exc_type": "OOMKilled",
            "exc_module": "petiole.exceptions",
            "exc_message": ["The container ran out of memory.", DETAILS],
        },
        "traceback": None,
        "children": [],
        "date_done": None,
        "task_id": "some-id",
    }
    results.set("celery-task-meta-some-id", json.dumps(meta))
    done = python.run(
        "-m", "result_client", "some-id", "import" if has_package else "", BACKEND_URL=backend_url
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["type"] == "OOMKilled"
    assert seen["args"] == ["The container ran out of memory.", DETAILS]
    if has_package:
        assert seen["module"] == "petiole.exceptions"
        assert seen["text"] == "The container ran out of memory."
        assert {name: seen[name] for name in DETAILS} == DETAILS
    else:
        assert seen["module"] == "celery.exceptions"
