#!/bin/sh
# A folder of src/ may include only itself and folders that sort before it, always by the full path "folder/file.h".
# Exits 1 and names each line that does not.
set -eu
export LC_ALL=C
cd "${1:-src}"
grep -rnE --include='*.[ch]' '^ *# *include *"' . |
awk -F'[:"]' '{
    split($1, from, "/")
    if (split($4, to, "/") != 2) { print $1 ":" $2 ": include by folder and file, not " $4; bad = 1 }
    else if (to[1] > from[2]) { print $1 ":" $2 ": must not include " $4; bad = 1 }
} END { exit bad }'
