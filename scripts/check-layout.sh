#!/usr/bin/env bash
# Fails if a Rust file is longer than people like to read.
set -euo pipefail
cd "$(dirname "$0")/.."

max=500
long="$(find . -name target -prune -o -name '*.rs' -type f -exec awk -v max="$max" \
    'FNR == max + 1 { print FILENAME }' {} +)"
if [ -n "$long" ]; then
    echo "error: these files have more than $max lines; split them by what they are about:" >&2
    while IFS= read -r file; do echo "  $file ($(wc -l < "$file") lines)" >&2; done <<< "$long"
    exit 1
fi
