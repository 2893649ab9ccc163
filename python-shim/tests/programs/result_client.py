"""Wait for a stored result as a Celery client does and print what it raises.

With `import` as the second argument the client has imported the package before.
"""

from __future__ import annotations

import json
import os
import sys

from celery import Celery

if sys.argv[2] == "import":
    import petiole  # noqa: F401 - importing is what is tested.

app = Celery("results", backend=os.environ["BACKEND_URL"])
try:
    app.AsyncResult(sys.argv[1]).get(timeout=10)
except Exception as error:
    fields = ("category", "subreason", "exit_code", "pod", "container")
    seen = {name: getattr(error, name, None) for name in fields}
    seen.update(type=type(error).__name__, module=type(error).__module__, text=str(error))
    seen.update(args=list(error.args))
    print(json.dumps(seen))
