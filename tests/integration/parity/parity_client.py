"""What a client does with each feature, and what it sees: the same against every kind of worker.

    python parity_client.py RESULT.json

Runs all scenarios at the same time against the workers `open` (which accepts json, pickle, msgpack
and yaml, and keeps extended results) and `strict` (which has Celery's defaults), and writes of each
what it returned, the ids of its tasks, and every document that was published.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import parity_scenarios  # noqa: F401 - enters the scenarios
import parity_scenarios_canvas  # noqa: F401
import redis
from parity_app import app
from parity_scene import SCENARIOS, Scene, Watch


def play(scene: Scene, ret_outcomes: dict[str, Any]) -> None:
    """Run one scenario; what it raises is what it returned."""
    try:
        returned = SCENARIOS[scene.name](scene)
    except BaseException:
        returned = {"broken": traceback.format_exc()}
    ret_outcomes[scene.name] = {"seen": returned, "ids": scene.ids}


def main() -> None:
    """Run all scenarios, each in a thread of its own."""
    broker = redis.Redis.from_url(os.environ["PARITY_URL"])
    watch = Watch(broker)
    names = os.environ.get("PARITY_ONLY", "").split() or list(SCENARIOS)
    outcomes: dict[str, Any] = {}
    scenes = [Scene(name, app, watch, broker) for name in names]
    threads = [threading.Thread(target=play, args=(scene, outcomes)) for scene in scenes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watch.stop()
    result = {"scenarios": outcomes, "documents": watch.documents}
    Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
