"""The training task."""

from __future__ import annotations

from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from app.celery_app import celery_app


class OutOfMemoryError(RuntimeError):
    """The training did not get the memory it asked for; another attempt may."""


@celery_app.task(
    name="app.tasks.training.train_lora",
    autoretry_for=(OutOfMemoryError, SoftTimeLimitExceeded),
    retry_backoff=True,
    retry_backoff_max=600,
    retry_jitter=True,
    max_retries=3,
    soft_time_limit=3600,
)
def train_lora(config: dict[str, Any]) -> dict[str, Any]:
    """Train adapters as `config` says and return what came of it.

    Args:
        config: The objects `model`, `data`, `training`, `lora`, `system` and `metadata`, and
            `experiment_name` and `user_id`. What of it matters to the training is in
            `app.hyperparameters`.

    Returns:
        {"status", "train", "eval", "model_id", "mlflow_run_id", "config", "metadata"}.

    Raises:
        ValueError: The config cannot be trained with; the text names the field.
        OutOfMemoryError: There was not enough memory.
    """
    # The API imports this module to send the task, and must not need what trains.
    from app import experiment  # noqa: PLC0415

    try:
        return experiment.run(config)
    except MemoryError as error:
        raise OutOfMemoryError(f"the training ran out of memory: {error}") from error
