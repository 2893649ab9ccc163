"""A config module of Celery's."""

from __future__ import annotations

task_default_queue = "configured"
imports = ("manifest_more",)
