"""What goes wrong in a cluster, and what becomes of it: a full quota, a killed worker, an OOM."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import trainings
from control_plane import ControlPlane
from places import Kubernetes
from programs import DemoError, say, wait_until
from stage import Stage, Workers
from trainings import ADMIN, ALICE, Person, Training

# More than the quota of ALICE's tenant has room for.
AT_ONCE = 5
# A pod that runs for TRAINS_S has begun to train, and is far from its end.
LONG_EPOCHS = 40
TRAINS_S = 4.0
# So often the images are repeated that they need more memory than the template's limit of 1Gi.
TOO_MANY_COPIES = 6000
APPEAR_S = 60.0
WAITS = " waits: "  # what the worker logs


@dataclass(frozen=True)
class Acts:
    """Everything that the acts need."""

    stage: Stage
    control_plane: ControlPlane
    place: Kubernetes
    workers: Workers

    def play(self) -> str:
        """Return what was to be seen of all three. Raises DemoError."""
        say(f"{AT_ONCE} trainings at once where the quota has room for two")
        waiting = [self._post(ALICE, training={"epochs": 1}) for _ in range(AT_ONCE)]
        quota = self._watch_quota()
        say("a worker is killed in mid-training")
        killed = self._kill_worker(self._post(ADMIN, training={"epochs": LONG_EPOCHS}))
        trainings.follow(waiting, self.stage.programs)
        quota += f"\nAll {AT_ONCE} ended in SUCCESS."
        say("a training takes more memory than it may")
        return "\n\n".join((quota, killed, self._run_out_of_memory()))

    def _post(self, person: Person, **changes: Any) -> Training:
        return trainings.post(self.control_plane, person, **changes)

    def _watch_quota(self) -> str:
        """Wait until the worker holds tasks back, and return what shows it."""
        worker = self.workers.of(ALICE.tenant)

        def waiting() -> list[str]:
            return [line for line in worker.text().splitlines() if WAITS in line]

        if not wait_until(lambda: bool(waiting()), APPEAR_S):
            raise DemoError(f"no task waited for the quota:\n{worker.log_tail()}")
        return "\n".join(
            (
                f"{AT_ONCE} trainings of {ALICE.name} at once. Those that the quota has no room for"
                " wait without a Job:",
                self.place.kubectl("get", "resourcequota,jobs", "-n", ALICE.tenant),
                waiting()[0],
            )
        )

    def _kill_worker(self, training: Training) -> str:
        """Kill the worker in mid-training, start another, and return what came of it."""
        tenant, task_id = training.tenant, training.task_id
        if not wait_until(lambda: self.place.is_running(tenant, task_id), APPEAR_S):
            raise DemoError(f"the pod of task {task_id} does not run")
        time.sleep(TRAINS_S)
        self.workers.kill(training.tenant)
        killed_s = time.monotonic() - training.posted_s
        if training.look():
            raise DemoError("the training was over before its worker could be killed")
        self.workers.start(training.tenant)
        ready_s = time.monotonic() - training.posted_s
        trainings.follow([training], self.stage.programs)
        job = self.place.find_job(training.tenant, training.task_id)
        accuracy = training.answer["result"]["eval"]["accuracy"]
        return (
            f"The worker of {training.tenant} was killed (SIGKILL) {killed_s:.1f} s after"
            f" POST /train, another one was ready at {ready_s:.1f} s, and the training ended at"
            f" {training.seconds:.1f} s in {training.status} with accuracy {accuracy:.4f}."
            f" It is still the one Job\n{job.name}"
        )

    def _run_out_of_memory(self) -> str:
        """Return what the API says of a training that takes too much memory, whenever tried."""
        training = self._post(ADMIN, data={"copies": TOO_MANY_COPIES})
        trainings.follow([training], self.stage.programs, "FAILURE")
        answer = json.dumps(training.answer, indent=2)
        return f"A training that needs more memory than its limit:\n$ GET /task/ID\n{answer}"
