#!/bin/sh
# No object of the release build has writable globals or statics, but for those listed in globals_allowed.txt
# ("folder/file symbol" a line, # starts a comment). Exits 1 and names the others and the entries without a symbol.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
objects=${BUILD:-build}/release/src
[ -d "$objects" ] || { echo "$objects is missing: build first"; exit 1; }

# Constant tables of pointers are writable only to the loader: .data.rel.ro. A function's static is "name.0".
found=$(find src -name '*.c' | sort | while read -r source; do
    object=${objects%/src}/${source%.c}.o
    [ -f "$object" ] || { echo "$object is missing: build first" >&2; exit 1; }
    name=${source#src/}
    nm --format=sysv "$object" | awk -F'|' -v file="${name%.c}" '
        $7 ~ /^\*COM\*|^\.(data|bss|tdata|tbss)/ && $7 !~ /^\.data\.rel\.ro/ && $4 !~ /SECTION|FILE/ {
            gsub(/ /, "", $1); sub(/\.[0-9]+$/, "", $1); print file, $1
        }'
done)
allowed=$(sed 's/ *#.*//; /^$/d' "$here/globals_allowed.txt")
printf '%s\n' "$found" | awk -v allowed="$allowed" '
    BEGIN { count = split(allowed, lines, "\n"); for (i = 1; i <= count; i++) unused[lines[i]] = known[lines[i]] = 1 }
    NF && !($0 in known) { print $0 ": a mutable global or static"; bad = 1 }
    { delete unused[$0] }
    END { for (line in unused) { print line ": allowed, but it does not exist"; bad = 1 } exit bad }'
