"""Write what a worker must know of a Celery app, as one JSON document.

    python -m petiole.manifest -A proj [-o manifest.json]

Options:
    -A, --app NAME       the app, as `celery -A` takes it; else CELERY_APP or APP
    -o, --output FILE    where the document goes; stdout without it
    -I, --include A,B    more modules to import, as `celery worker -I`
    --config MODULE      Celery's config module, as `celery --config`
    --workdir FOLDER     change to this folder first
    --with-credentials   do not leave passwords out, nor URLs with a password

`petiole -A proj worker` runs this at its start. With the document in a file, `petiole --manifest
FILE worker` needs no Python beside it. What is in the document is in `petiole._manifest`; it has a
list of warnings, which go to stderr too when it is written to a file.

Exits with 0, with 2 when the command line is wrong or there is no such app, and with 1, after a
traceback, when importing the app fails.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from pathlib import Path
from typing import IO, Any

from petiole import _app, _manifest

EXIT_USAGE = 2  # click's
EXIT_IMPORT = 1
_LOADERS = ("celery", "importlib", "kombu", "petiole")


class AppNotFoundError(Exception):
    """There is no such app; the text is Celery's."""


def main(arguments: list[str] | None = None) -> int:
    """Write the manifest that the command line asks for and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        output = _private_stdout() if options.output == "-" else None
        document = _make(options)
    except AppNotFoundError as error:
        print(f"Error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (Exception, SystemExit):
        traceback.print_exc()
        print(
            f"Error: Unable to load celery application: importing {options.app or 'it'} failed.",
            file=sys.stderr,
        )
        return EXIT_IMPORT
    text = json.dumps(document, indent=1) + "\n"
    if output is not None:
        with output:
            output.write(text)
        return 0
    Path(options.output).write_text(text, encoding="utf-8")
    for warning in document["warnings"]:
        print(f"Warning: {warning}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    environ = os.environ
    parser = argparse.ArgumentParser(
        prog="python -m petiole.manifest",
        description="Write what a Petiole worker must know of a Celery app, as JSON.",
    )
    parser.add_argument(
        "-A",
        "--app",
        default=environ.get("CELERY_APP") or environ.get("APP"),
        help="the app, as module:attribute; else CELERY_APP or APP",
    )
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="else stdout")
    parser.add_argument("-I", "--include", default="", metavar="A,B", help="more modules to import")
    parser.add_argument("--config", metavar="MODULE", help="Celery's config module")
    parser.add_argument("--workdir", metavar="FOLDER", help="change to this folder first")
    parser.add_argument(
        "--with-credentials", action="store_true", help="do not leave passwords out"
    )
    return parser


def _private_stdout() -> IO[str]:
    """Return a stream to stdout that nobody else has; what the app prints goes to stderr."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _make(options: argparse.Namespace) -> dict[str, Any]:
    """Load the app and return its manifest.

    Raises:
        AppNotFoundError: There is no such app, or no word of which one.
        Exception: Whatever importing it raised.
    """
    if options.output != "-":
        options.output = str(Path(options.output).absolute())
    if options.workdir:
        os.chdir(options.workdir)
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    if options.config:
        os.environ["CELERY_CONFIG_MODULE"] = options.config
    include = [module.strip() for module in options.include.split(",") if module.strip()]
    if not options.app and not include and not os.environ.get("CELERY_CONFIG_MODULE"):
        raise AppNotFoundError("Missing option '-A' / '--app': no app is named.")
    try:
        app = _app.load(options.app, include)
    except ModuleNotFoundError as error:
        if options.app and _is_missing(options.app, error):
            raise AppNotFoundError(
                f"Unable to load celery application.\nThe module {error.name} was not found."
            ) from error
        raise
    except AttributeError as error:
        if _is_of_loader(error):
            raise AppNotFoundError(
                f"Unable to load celery application.\n{str(error).capitalize()}"
            ) from error
        raise
    return _manifest.document(app, options.app, with_credentials=options.with_credentials)


def _is_missing(app: str, error: ModuleNotFoundError) -> bool:
    """Return whether it is the app's own module that is missing, not one that it imports."""
    module = app.partition(":")[0]
    parents = [module.rsplit(".", count)[0] for count in range(module.count(".") + 1)]
    return error.name in {app, *parents, f"{module}.celery"}


def _is_of_loader(error: AttributeError) -> bool:
    """Return whether Celery raised it because the module has no such attribute."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.partition(".")[0] in _LOADERS


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # An app may start threads when it is imported; nobody waits for them here.
    os._exit(code)
