"""A Celery app that routes by tenant; with arguments it sends one task: HOW and a JSON object."""

from __future__ import annotations

import json
import os
import sys

from celery import Celery

app = Celery("routed", broker=os.environ["BROKER_URL"])
app.conf.update(task_routes=("petiole.routing.by_tenant",), task_ignore_result=True)
app.conf.update(json.loads(os.environ.get("CONF", "{}")))


@app.task(name="routed.train")
def train(*args, **kwargs):
    """Do nothing."""


@app.task(name="routed.parent")
def parent(config):
    """Send a task whose arguments name no tenant."""
    child.delay()


@app.task(name="routed.child", bind=True)
def child(self):
    """Leave in Redis where this task came from."""
    seen = {
        "queue": self.request.delivery_info["routing_key"],
        "header": self.request.get("petiole_tenant"),
    }
    with app.connection_for_write() as connection:
        connection.default_channel.client.rpush("seen", json.dumps(seen))


def main() -> None:
    """Send the task and print where the headers that were passed in ended up."""
    how, call = sys.argv[1], json.loads(sys.argv[2])
    args, kwargs, options = (call.get(key) for key in ("args", "kwargs", "options"))
    if how == "delay":
        train.delay(*(args or ()), **(kwargs or {}))
    elif how == "apply_async":
        train.apply_async(args, kwargs, **(options or {}))
    elif how == "signature":
        train.signature(args, kwargs, **(options or {})).apply_async()
    else:
        app.send_task("elsewhere.train", args, kwargs, **(options or {}))
    print(json.dumps(options))


if __name__ == "__main__":
    main()
