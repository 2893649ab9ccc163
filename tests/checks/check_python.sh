#!/bin/sh
# check_python.sh [--fix]: the Python sources pass ruff (rules and layout) and the package passes mypy --strict.
# --fix rewrites what ruff can. Exits 1 and names each place.
set -eu
python=$(python3 tests/support/python_env.py newest)
cache=${BUILD:-build}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
export RUFF_CACHE_DIR="$cache/ruff" MYPY_CACHE_DIR="$cache/mypy"

lay_out() { # lay_out FOLDER RUFF_OPTION...: checks or rewrites one folder
    folder=$1
    shift
    if [ "$fix" ]; then
        "$python" -m ruff check --quiet --fix "$@" "$folder" || true
        "$python" -m ruff format --quiet "$@" "$folder"
        return
    fi
    "$python" -m ruff check --quiet --output-format concise "$@" "$folder" || bad=1
    "$python" -m ruff format --quiet --check "$@" "$folder" || bad=1
}

bad=0
fix=${1:-}
for folder in tests benchmarks; do
    [ ! -d $folder ] || lay_out $folder --config tests/checks/ruff.toml
done
if [ -f python-shim/pyproject.toml ]; then
    cd python-shim # its own rules
    lay_out .
    [ "$fix" ] || "$python" -m mypy --strict || bad=1
fi
exit $bad
