"""The scenarios of tasks that hang together."""

from __future__ import annotations

from typing import Any

from celery import chain, chord, group
from parity_scene import OPEN, STRICT, Scene, scenario


def linked(scene: Scene, *callbacks: Any, name: str = "add", **options: Any) -> Any:
    """Send a task with callbacks; return what is seen of it and of what it called."""
    args = (1, 2) if name == "add" else ()
    result = scene.send(name, *args, link=list(callbacks), **options)
    seen = scene.seen(result)
    children = result.children or ()
    return [seen, [scene.seen(child) for each in children for child in members(each)]]


def members(result: Any) -> list[Any]:
    """Return the results of a group, or the one of a task."""
    return list(result.results) if hasattr(result, "results") else [result]


def named(scene: Scene, signature: Any, label: str) -> Any:
    """Return the signature with an id of the scene's."""
    return signature.set(task_id=scene.new_id(label))


@scenario
def link(scene: Scene) -> Any:
    """Call tasks after success."""
    return [
        linked(scene, scene.sign("add", 10), label="one"),
        linked(scene, scene.sign("add", 10), scene.sign("add", 20), label="two"),
        linked(scene, scene.immutable("add", 5, 5), label="immutable"),
        linked(scene, group(scene.sign("add", 1), scene.sign("add", 2)), label="group"),
        linked(scene, scene.sign("add", 10), name="fail", label="after failure"),
    ]


@scenario
def link_error(scene: Scene) -> Any:
    """Call tasks after failure."""
    seen = []
    for name in ("errback_new", "errback_broken"):
        result = scene.send("fail", label=name, link_error=[scene.sign(name)])
        seen.append(scene.seen(result))
        scene.noted(result, "task_postrun")
    old = named(scene, scene.sign("errback_old"), "old errback")
    seen.append(scene.run("fail", label="old", link_error=[old]))
    seen.append(scene.seen(scene.app.AsyncResult(scene.ids["old errback"])))
    plain = named(scene, scene.immutable("types", 3), "immutable errback")
    seen.append(scene.run("fail", label="immutable", link_error=[plain]))
    seen.append(scene.seen(scene.app.AsyncResult(scene.ids["immutable errback"])))
    return seen


@scenario
def link_error_many(scene: Scene) -> Any:
    """Call several tasks after failure, of both styles."""
    old = named(scene, scene.sign("errback_old"), "old errback")
    other = named(scene, scene.sign("errback_old"), "other errback")
    errbacks = [old, scene.sign("errback_new"), other]
    seen = scene.run("fail", link_error=errbacks)
    return [seen] + [
        scene.seen(scene.app.AsyncResult(scene.ids[label]))
        for label in ("old errback", "other errback")
    ]


@scenario
def link_error_unknown(scene: Scene) -> Any:
    """Name an errback that is not there."""
    errback = scene.app.signature("nobody.knows.this").set(queue=OPEN)
    named(scene, errback, "errback")
    seen = scene.run("fail", link_error=[errback])
    return [seen, scene.seen(scene.app.AsyncResult(scene.ids["errback"]))]


@scenario
def link_error_of_lost(scene: Scene) -> Any:
    """Call tasks when the worker, not a process, reports the failure."""
    seen = []
    for label, name, args in (("lost", "leave", (3,)), ("limit", "hard_limit", ())):
        errback = named(scene, scene.sign("errback_old"), f"errback of {label}")
        seen.append(scene.run(name, *args, label=label, link_error=[errback]))
        seen.append(scene.seen(scene.app.AsyncResult(scene.ids[f"errback of {label}"])))
    return seen


@scenario
def retry_in_chain(scene: Scene) -> Any:
    """Retry with callbacks and a rest of a chain."""
    steps = chain(scene.sign("retry_headers"), scene.immutable("add", 1, 2))
    return scene.seen(scene.apply(steps, "last"))


@scenario
def chains(scene: Scene) -> Any:
    """Run chains."""
    steps = [scene.sign("add", 1, 2), scene.sign("add", 10), scene.sign("add", 100)]
    whole = scene.apply(chain(*steps), "whole")
    seen = [scene.seen(each) for each in (whole, whole.parent, whole.parent.parent)]
    steps = [scene.sign("fail"), scene.sign("add", 1), scene.sign("add", 2)]
    broken = scene.apply(chain(*steps), "broken")
    seen += [scene.seen(each) for each in (broken, broken.parent, broken.parent.parent)]
    return seen


@scenario
def chain_of_lost(scene: Scene) -> Any:
    """Lose a process in a chain."""
    broken = scene.apply(chain(scene.sign("leave", 3), scene.immutable("add", 1)), "last")
    return [scene.seen(each) for each in (broken.parent, broken)]


@scenario
def groups(scene: Scene) -> Any:
    """Run groups."""
    result = group(scene.sign("add", 1, number) for number in range(3)).apply_async()
    scene.enter(result, "group")
    seen = [scene.seen(each) for each in result.results]
    return [seen, result.get(timeout=20), result.successful()]


@scenario
def chords(scene: Scene) -> Any:
    """Run chords."""
    head = [scene.sign("add", 1, 1), scene.sign("slow_add", 2, 2)]
    plain = scene.apply(chord(head, scene.sign("total")), "plain")
    upgraded = scene.apply(
        chain(group(scene.sign("add", 3, 3), scene.sign("slow_add", 4, 4)), scene.sign("total")),
        "of a chain",
    )
    nested = scene.apply(
        chain(
            scene.sign("add", 1, 1),
            group(scene.sign("add", 10), scene.sign("slow_add", 20)),
            scene.sign("total"),
            scene.sign("add", 1000),
        ),
        "nested",
    )
    return [scene.seen(each) for each in (plain, upgraded, nested)]


@scenario
def chord_retry(scene: Scene) -> Any:
    """Retry in the head of a chord."""
    head = [scene.sign("autoretry", 1), scene.sign("ignored", None), scene.sign("add", 1)]
    result = scene.apply(chord(head, scene.sign("types")), "body")
    return scene.seen(result)


@scenario
def chord_error(scene: Scene) -> Any:
    """Fail in the head of a chord."""
    errback = scene.sign("errback_new")
    body = scene.sign("total").on_error(errback)
    result = scene.apply(chord([scene.sign("add", 1, 1), scene.sign("slow_fail")], body), "body")
    return scene.seen(result)


@scenario
def chord_of_lost(scene: Scene) -> Any:
    """Lose a process in the head of a chord."""
    head = [scene.sign("add", 1, 1), scene.sign("leave", 3)]
    return scene.seen(scene.apply(chord(head, scene.sign("total")), "body"))


@scenario
def chunks(scene: Scene) -> Any:
    """Run map, starmap and chunks."""
    add = scene.app.tasks["parity_app.add"]
    types = scene.app.tasks["parity_app.types"]
    results = [
        types.map([1, "a"]).set(queue=OPEN).apply_async(task_id=scene.new_id("map")),
        add.starmap([(1, 2), (3, 4)]).set(queue=OPEN).apply_async(task_id=scene.new_id("starmap")),
    ]
    pieces = add.chunks([(1, 1), (2, 2), (3, 3)], 2).group().set(queue=OPEN).apply_async()
    scene.enter(pieces, "chunks")
    return [scene.seen(each) for each in (*results, *pieces.results)]


@scenario
def replace(scene: Scene) -> Any:
    """Become another task."""
    return [scene.run("replace", how, label=how) for how in ("task", "chain", "group")] + [
        linked(scene, scene.sign("add", 10), name="replace_linked", label="linked")
    ]


@scenario
def inside(scene: Scene) -> Any:
    """Send tasks inside a task."""
    seen = [scene.run("delay_inside")]
    result = scene.send("canvas_inside")
    seen.append(scene.seen(result))
    for child in result.children:
        for each in members(child):
            scene.ended(each)
    return seen


@scenario
def stamps(scene: Scene) -> Any:
    """Stamp tasks, where this Celery can."""
    signature = chain(scene.sign("stamped"), scene.immutable("stamped"))
    if not hasattr(signature, "stamp"):
        return "no stamps in this Celery"
    signature.stamp(who="me", tags=["a", "b"])
    result = scene.apply(signature, "stamped")
    return [scene.seen(result.parent), scene.seen(result)]


@scenario
def strict_canvas(scene: Scene) -> Any:
    """Run a chain over both workers."""
    steps = chain(scene.sign("add", 1, 2).set(queue=STRICT), scene.sign("add", 10))
    result = scene.apply(steps, "last")
    return [scene.seen(result.parent), scene.seen(result)]
