"""What a task's failure is when its Job, and not its code, failed.

The worker stores one of these names as `exc_type`, with this module as `exc_module`, and as
`exc_message` the list [sentence, details]. A Celery client calls the class with these two, so
`AsyncResult.get()` raises it. A client that has not imported this module gets a class of the same
name and arguments that Celery makes up on the spot.

The details are a mapping with the keys `category`, `subreason`, `exit_code`, `pod` and
`container`; any of them may be missing or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PetioleError(Exception):
    """A failure that Petiole found; `str()` of it is one sentence for people.

    Args:
        sentence: What happened.
        details: The keys above, JSON values all.
    """

    def __init__(self, sentence: str = "", details: Mapping[str, Any] | None = None) -> None:
        """Keep both as `args`, by which the exception is pickled and stored."""
        super().__init__(sentence, dict(details) if isinstance(details, Mapping) else {})

    def __str__(self) -> str:
        """Return the sentence alone."""
        return str(self.args[0])

    @property
    def details(self) -> Mapping[str, Any]:
        """Everything that is known about the failure."""
        details: Mapping[str, Any] = self.args[1]
        return details

    @property
    def category(self) -> str:
        """The kind of failure in one word: the class' name unless the details say another."""
        return str(self.details.get("category") or type(self).__name__)

    @property
    def subreason(self) -> str | None:
        """The finer cause, as `InsufficientResources` is of `Unschedulable`."""
        return _text(self.details.get("subreason"))

    @property
    def exit_code(self) -> int | None:
        """The exit code of the container, 128 + n after signal n; None when it never ran."""
        code = self.details.get("exit_code")
        return code if isinstance(code, int) and not isinstance(code, bool) else None

    @property
    def pod(self) -> str | None:
        """The name of the pod, None when there was none."""
        return _text(self.details.get("pod"))

    @property
    def container(self) -> str | None:
        """The name of the container that failed, None when none did."""
        return _text(self.details.get("container"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


class OOMKilled(PetioleError):
    """The kernel killed the container because it passed its memory limit."""


class Evicted(PetioleError):
    """The kubelet or the eviction API removed the pod."""


class Preempted(PetioleError):
    """The scheduler removed the pod for one of higher priority."""


class NodeLost(PetioleError):
    """The pod's node went away."""


class DeadlineExceeded(PetioleError):
    """The pod or its Job ran longer than it may."""


class ImagePullError(PetioleError):
    """The image could not be pulled."""


class InvalidImage(PetioleError):
    """The image's name or content is not one that can run."""


class CreateContainerError(PetioleError):
    """The runtime could not make the container."""


class ContainerConfigError(PetioleError):
    """The container refers to something that is not there, as a missing ConfigMap."""


class Unschedulable(PetioleError):
    """No node takes the pod: InsufficientResources, NodeAffinity or Taint is the subreason."""


class QuotaExceeded(PetioleError):
    """The Job can never fit into the tenant's quota."""


class PodSecurityViolation(PetioleError):
    """The namespace's Pod Security level forbids the pod."""


class AdmissionDenied(PetioleError):
    """An admission plugin or webhook refused the Job or its pod."""


class CrashExit(PetioleError):
    """The container ended with a non-zero exit code and without a report."""


class Signalled(PetioleError):
    """A signal ended the container before it reported."""


class UserException(PetioleError):
    """The task's code raised something that could not be carried as it was."""


class JobDeleted(PetioleError):
    """Somebody deleted the Job before its result was stored."""


class Cancelled(PetioleError):
    """The task was revoked while its Job ran."""


class Unknown(PetioleError):
    """The Job failed and nothing tells why."""


class TenantMismatch(PetioleError):
    """The message names another tenant than the worker's, or names two."""


class MessageTooLarge(PetioleError):
    """The message does not fit into the pod template's annotation."""


class JobNameConflict(PetioleError):
    """A Job of the task's name exists that is not of this task."""


class ResultLost(PetioleError):
    """The Job is complete, and its result cannot be read or is damaged."""


class ResultTooLarge(PetioleError):
    """The task's result is larger than a Job can report."""


class TemplateError(PetioleError):
    """The Job template and the message do not fit together."""


class CanvasUnsupported(PetioleError):
    """The message asks for callbacks, a chain or a chord, which the worker does not carry out."""


class MessageUnsupported(PetioleError):
    """The message is right, but in a serialization or compression that the worker cannot read."""
