"""The Python side of Petiole: routing by tenant, exceptions of failed Jobs, and the task runner.

Importing the package makes `petiole.exceptions` known, so that a Celery client raises the real
classes: Celery looks an exception's module up among the imported ones and never imports it.
"""

from __future__ import annotations

from petiole import exceptions

__all__ = ["__version__", "exceptions"]

__version__ = "0.1.0"
