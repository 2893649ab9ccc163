"""The tasks; `celery -A app.tasks` and `PETIOLE_APP=app.tasks` find the Celery app here."""

from __future__ import annotations

from app.celery_app import celery_app as celery

__all__ = ["celery"]
