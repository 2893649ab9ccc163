"""The local executor: a Job's template as a process of this machine, and what it says meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery
from job_template import write_template
from petiole_worker import TOP, PetioleWorker
from waiting import wait_for

pytestmark = pytest.mark.petiole_only
TASK = """
import time
from pathlib import Path
from celery import Celery

app = Celery("steps")

@app.task(name="local.steps", bind=True)
def steps(self, folder):
    for step in (1, 2):
        self.update_state(state="STEP", meta={"step": step})
        while not Path(folder, str(step)).exists():
            time.sleep(0.02)
    return "all done"
"""


def test_clients_see_what_a_process_tells(
    start_petiole: Callable[..., PetioleWorker], client: Celery, tmp_path: Path
) -> None:
    (tmp_path / "local_steps.py").write_text(TASK)
    template = write_template(
        tmp_path,
        "steps",
        command=(sys.executable, "-m", "petiole.run"),
        env={"PETIOLE_APP": "local_steps"},
    )
    path = f"{tmp_path}:{TOP / 'python-shim' / 'src'}"
    row = {"executor": "local", "job_template": template}
    start_petiole(task_options={"local.*": row}, environment={"PYTHONPATH": path})
    result = client.send_task("local.steps", (str(tmp_path),))
    for step in (1, 2):
        wait_for(lambda step=step: result.info == {"step": step}, 30, f"step {step}")
        assert result.state == "STEP"
        (tmp_path / str(step)).touch()
    assert result.get(timeout=10) == "all done"
