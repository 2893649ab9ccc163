"""Makes a transcript of each feature from what one run left: JSON that two runs have in common.

What must differ is taken out here and nowhere else: ids become the labels that the client gave
them, and process ids, times, numbers of processes and addresses become placeholders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WORKER_FEATURES = ("worker_signals", "worker_log", "broker_at_end")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LOG_HEAD = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: (\w+)/([\w-]+)\] ")
# What Celery's worker, or a task below it, prints beside the log.
OWN_LINES = re.compile(r"(?<=\n)(worker: |raw output |petiole.run: |::petiole).*\n")
LOUD = ("WARNING", "ERROR", "CRITICAL")
PLACEHOLDERS = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?"), "<time>"),
    (re.compile(r"(succeeded in )[\d.e-]+s"), r"\1<seconds>s"),
    (re.compile(r"\bgen\d+@"), "gen<pid>@"),
    (re.compile(r"\bpid:\d+"), "pid:<pid>"),
    (re.compile(r"\bpid: \d+"), "pid: <pid>"),
    (re.compile(r"\bJob: \d+"), "Job: <number>"),
    (re.compile(r"\bForkPoolWorker-\d+"), "ForkPoolWorker-<number>"),
    (re.compile(r"0x[0-9a-f]{6,}"), "0x<address>"),
    (
        re.compile(r"(Terminating \S+) \((Signals\.\w+|\d+)\)"),
        r"\1 (<signal>)",
    ),  # until Python 3.11
    # Celery cuts a representation at a length, and numbers before that have one digit more or less.
    (re.compile(r"(succeeded in <seconds>s: [^\n]*, )'[^\n]{40,}\.\.\."), r"\1..."),
)
NOT_COMPARED = ("id", "node", "root_id", "in_child", "pid")  # of a note


@dataclass
class Run:
    """What one run against the two workers of one kind left."""

    client: dict[str, Any]
    notes: list[dict[str, Any]]
    stored: dict[str, str]
    logs: dict[str, str]
    broker_keys: list[str]


@dataclass(frozen=True)
class LogEntry:
    """A line of a log with the lines that follow it without a head."""

    level: str
    process: str
    text: str

    def shown(self) -> str:
        """Return it as it is compared."""
        return f"{self.level}/{self.process}] {self.text}"


@dataclass
class Feature:
    """What belongs to one scenario."""

    seen: Any
    labels: dict[str, str] = field(default_factory=dict)


def read_log(text: str) -> list[LogEntry]:
    """Return the entries of a log; what stands before the first is left out."""
    heads = list(LOG_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return [
        LogEntry(head[1], head[2], OWN_LINES.sub("", text[head.end() : end]).rstrip("\n"))
        for head, end in zip(heads, ends, strict=True)
    ]


def normal(value: Any, labels: Mapping[str, str]) -> Any:
    """Return `value` without what differs from run to run; `labels` are the known ids."""
    if isinstance(value, str):
        return _normal_text(value, labels)
    if isinstance(value, Mapping):
        return {
            _normal_text(str(key), labels): _normal_member(key, each, labels)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [normal(each, labels) for each in value]
    return value


def _normal_member(key: Any, value: Any, labels: Mapping[str, str]) -> Any:
    if key == "pid" and isinstance(value, int):
        return "<pid>"
    if key == "runtime" and isinstance(value, float):
        return "<seconds>"
    return normal(value, labels)


def _normal_text(text: str, labels: Mapping[str, str]) -> str:
    text = UUID.sub(lambda match: f"<{labels.get(match[0], 'uuid')}>", text)
    for pattern, replacement in PLACEHOLDERS:
        text = pattern.sub(replacement, text)
    return text


def transcripts(run: Run) -> dict[str, Any]:
    """Return the transcript of every feature, and those of WORKER_FEATURES."""
    features = {
        name: Feature(each["seen"], {value: label for label, value in each["ids"].items()})
        for name, each in run.client["scenarios"].items()
    }
    owners = {task_id: each for each in features.values() for task_id in each.labels}
    _find_descendants(run.notes, owners)
    found = {name: _of_feature(run, each) for name, each in features.items()}
    found["worker_signals"] = dict.fromkeys(_worker_signals(run.notes), "sent")
    found["worker_log"] = dict.fromkeys(_without_owner(run.logs, owners), "there")
    found["broker_at_end"] = dict.fromkeys(normal(run.broker_keys, {}), "there")
    return found


def _find_descendants(notes: Iterable[Mapping[str, Any]], owners: dict[str, Feature]) -> None:
    """Enter the tasks that tasks have sent, each labelled by its name and arguments."""
    for note in notes:
        if note["kind"] == "before_task_publish" and note["id"] in owners:
            headers = note["values"]["headers"]
            label = f"{headers['task']}{headers['argsrepr']}"
            _enter(owners, owners[note["id"]], headers["id"], label)
    for note in notes:
        if note["kind"] == "task_prerun" and note.get("root_id") in owners:
            label = f"{note['sender']}{tuple(note['values']['args'])}"
            _enter(owners, owners[note["root_id"]], note["id"], label)


def _enter(owners: dict[str, Feature], owner: Feature, task_id: str, label: str) -> None:
    if task_id in owners:
        return
    owners[task_id] = owner
    label = UUID.sub(lambda match: owner.labels.get(match[0], "uuid"), label)
    names = (label, *(f"{label} {number}" for number in range(2, 99)))
    owner.labels[task_id] = next(name for name in names if name not in owner.labels.values())


def _of_feature(run: Run, feature: Feature) -> dict[str, Any]:
    entries = [entry for text in run.logs.values() for entry in read_log(text)]
    tasks = {
        label: _of_task(run, task_id, feature.labels, entries)
        for task_id, label in sorted(feature.labels.items(), key=lambda item: item[1])
    }
    return {"seen": normal(feature.seen, feature.labels), "tasks": tasks}


def _of_task(
    run: Run, task_id: str, labels: Mapping[str, str], entries: Iterable[LogEntry]
) -> dict[str, Any]:
    documents = run.client["documents"].get(task_id, ())
    lines: dict[str, list[str]] = {}
    for entry in entries:
        if (first := UUID.search(entry.text)) and first[0] == task_id:
            head, _, rest = _normal_text(entry.shown(), labels).partition("\n")
            lines[head] = sorted([*lines.get(head, []), rest])
    return {
        "documents": [normal(_parsed(text), labels) for text in documents],
        "stored": normal(_parsed(run.stored.get(task_id)), labels),
        **_signals([note for note in run.notes if note["id"] == task_id], labels),
        "log": lines,  # the head of each entry, with what stands under it
    }


def _signals(notes: Iterable[Mapping[str, Any]], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return what was noted in each run of a task, in order, and outside of any.

    A run is what its process notes from task_prerun to task_postrun: the next run of the same task
    may begin before the end of the one before it.
    """
    runs: list[list[Any]] = []
    outside: list[Any] = []
    open_runs: dict[int, list[Any]] = {}
    for note in notes:
        shown = {key: value for key, value in note.items() if key not in NOT_COMPARED}
        if note["kind"] == "task_prerun":
            runs.append([])
            open_runs[note["pid"]] = runs[-1]
        open_runs.get(note["pid"], outside).append(normal(shown, labels))
        if note["kind"] == "task_postrun":
            open_runs.pop(note["pid"], None)
    return {"runs": runs, "outside": outside}


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _worker_signals(notes: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        f"{note['signal']}({', '.join(note['keys'])})"
        + (" in a process of the pool" if note["in_child"] else "")
        for note in notes
        if note["kind"] == "worker_signal"
    ]


def _without_owner(logs: Mapping[str, str], owners: Mapping[str, Feature]) -> list[str]:
    """Return the first line of each entry that is about no task of a scenario."""
    return [
        _normal_text(f"{node}: {entry.shown().splitlines()[0]}", {})
        for node, text in logs.items()
        for entry in read_log(text)
        if entry.level in LOUD
        and not entry.text.startswith("worker: ")
        and not any(each in owners for each in UUID.findall(entry.text)[:1])
    ]
