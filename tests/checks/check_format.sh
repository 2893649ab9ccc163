#!/bin/sh
# The C sources are as clang-format-14 lays them out (`make format` does it). Exits 1 and names the
# first place in each file that is not.
set -eu
files=$(git ls-files -co --exclude-standard 'src/*.[ch]' 'include/*.[ch]' 'tests/*.[ch]')
bad=0
for file in $files; do
    [ -f "$file" ] || continue
    clang-format-14 --dry-run -Werror --ferror-limit=1 "$file" || bad=1
done
exit $bad
