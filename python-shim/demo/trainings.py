"""The people of the demo and the trainings that they start."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from control_plane import ControlPlane, User
from programs import DemoError, Programs, say, wait_until

TRAINING_S = 180.0
UNFINISHED = ("PENDING", "RECEIVED", "STARTED", "RETRY")


@dataclass(frozen=True)
class Person:
    """Somebody who trains: how to log in, where his tasks belong, and what he asks for."""

    name: str
    password: str
    tenant: str
    epochs: int
    rank: int


ADMIN = Person("admin", "admin", "tenant-admin", epochs=3, rank=8)
ALICE = Person("alice", "wonderland", "tenant-user", epochs=2, rank=4)


@dataclass
class Training:
    """A task on its way; `answer` is what the API says of it, `seconds` the time until its end."""

    user: User
    tenant: str
    task_id: str
    posted_s: float = field(default_factory=time.monotonic)
    answer: dict[str, Any] = field(default_factory=lambda: {"status": "PENDING"})
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """The task's state."""
        return str(self.answer["status"])

    @property
    def is_finished(self) -> bool:
        """Whether the API has told the end of it."""
        return self.status not in UNFINISHED

    def look(self) -> bool:
        """Ask the API once more, unless the end is known; return whether it is."""
        if not self.is_finished:
            self.answer = self.user.task(self.task_id)
            self.seconds = time.monotonic() - self.posted_s
        return self.is_finished


def post(control_plane: ControlPlane, person: Person, **changes: dict[str, Any]) -> Training:
    """Log in and start a training; `changes` are objects of its config."""
    user = control_plane.log_in(person.name, person.password)
    config = {
        "experiment_name": f"demo-{person.name}",
        "training": {"epochs": person.epochs},
        "lora": {"r": person.rank},
        **changes,
    }
    task_id = user.train(config)
    say(f"POST /train as {person.name}: task {task_id}")
    return Training(user, person.tenant, task_id)


def follow(trainings: list[Training], programs: Programs, wanted: str = "SUCCESS") -> None:
    """Ask the API for the trainings until all have ended in the state `wanted`.

    Raises:
        DemoError: One ended otherwise, took too long, or a program has ended.
    """

    def are_finished() -> bool:
        programs.check()
        return all([training.look() for training in trainings])

    if not wait_until(are_finished, TRAINING_S):
        states = ", ".join(f"{each.task_id} {each.status}" for each in trainings)
        raise DemoError(f"not finished within {TRAINING_S:.0f} s: {states}")
    for training in trainings:
        if training.status != wanted:
            raise DemoError(
                f"the training of {training.tenant} did not end in {wanted}: {training.answer}"
            )
