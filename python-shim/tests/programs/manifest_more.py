"""A module with a task that no app names."""

from __future__ import annotations

from celery import shared_task


@shared_task(name="manifest.more")
def more():
    """Do nothing."""
