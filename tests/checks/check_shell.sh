#!/bin/sh
# Every shell script passes shellcheck and has at most 50 lines. Exits 1 and names what does not.
set -eu
scripts=$(git ls-files -co --exclude-standard '*.sh' .ci/run)
bad=0
for script in $scripts; do
    [ -f "$script" ] || continue
    shellcheck "$script" || bad=1
    lines=$(wc -l <"$script")
    [ "$lines" -le 50 ] || { echo "$script: $lines lines (50): write it in Python"; bad=1; }
done
exit $bad
