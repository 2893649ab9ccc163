"""The Celery app `lora_training`.

The API needs both addresses in its environment. The worker's Jobs have neither: they run the
task's body and report to the worker.
"""

from __future__ import annotations

import os

from celery import Celery

celery_app = Celery(
    "lora_training",
    broker=os.environ.get("CELERY_BROKER_URL"),
    backend=os.environ.get("CELERY_RESULT_BACKEND"),
    include=["app.tasks.training"],
)
celery_app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    result_serializer="json",
    # The API finds a task's owner in the arguments that are stored with its state.
    result_extended=True,
    timezone="Asia/Taipei",
    enable_utc=True,
    task_routes=("petiole.routing.by_tenant",),
)
