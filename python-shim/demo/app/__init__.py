"""The reference control plane: an API, and the Celery app with the training task."""
