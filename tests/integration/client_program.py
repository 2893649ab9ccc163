"""What a user's client does with the sample tasks, printed as one JSON object.

Runs under Celery 5.2.7 and later, as a program of its own; TEST_APP configures it (see app.py).
"""

from __future__ import annotations

import json
from typing import Any

from app import app

TIMEOUT_S = 20


def outcome_of(result: Any) -> dict[str, Any]:
    """Return what `get` gives: the value, or the class and arguments of what it raises."""
    try:
        return {"value": result.get(timeout=TIMEOUT_S)}
    except Exception as error:
        kind = type(error)
        return {"raises": f"{kind.__module__}.{kind.__qualname__}", "args": list(error.args)}


def main() -> None:
    """Send tasks in the usual ways and print what came back."""
    add, echo = app.tasks["petiole.sample.add"], app.tasks["petiole.sample.echo"]
    fail, sleep = app.tasks["petiole.sample.fail"], app.tasks["petiole.sample.sleep"]
    results = {
        "delay": add.delay(2, 3),
        "kwargs": add.apply_async(kwargs={"x": 1.5, "y": 2}),
        "text": echo.delay('é € \U0001f600 " \\ \n \x00'),
        "nested": echo.delay({"a": [1, None, True, {"b": -0.5}], "": []}),
        "infinity": echo.delay(float("inf")),
        "sleep": sleep.delay(0.01),
        "fail": fail.delay("no way"),
        "fail_unicode": fail.delay("ö\n"),
        "fail_empty": fail.delay(),
        "operand": add.delay(1, "a"),
        "missing": app.send_task("petiole.sample.add", [1]),
        "unknown": app.send_task("nobody.knows.this", [1], {"k": "v"}),
        "gzip": echo.apply_async(["z" * 5000], compression="gzip"),
        "countdown": add.apply_async((4, 5), countdown=0.2),
        "expires": add.apply_async((6, 7), expires=60),
        "headers": add.apply_async((8, 9), headers={"x-custom": "v", "n": 1}, shadow="other"),
        "protocol_1": None,
    }
    app.conf.task_protocol = 1
    app.amqp.task_protocol = 1
    app.amqp._create_task_message = app.amqp.as_task_v1
    results["protocol_1"] = add.delay(10, 11)
    outcomes = {name: outcome_of(result) for name, result in results.items()}
    states = {name: result.state for name, result in results.items()}
    many = [add.delay(number, number) for number in range(100)]
    sums = [result.get(timeout=TIMEOUT_S) for result in many]
    print(json.dumps({"outcomes": outcomes, "states": states, "sums": sums}))


if __name__ == "__main__":
    main()
