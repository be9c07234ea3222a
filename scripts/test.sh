#!/usr/bin/env bash
# Runs all tests, and closes with the sum of what they say of themselves.
set -euo pipefail

cargo="${CARGO:-cargo}"
command -v "$cargo" > /dev/null || {
    echo "error: $cargo is not installed" >&2
    echo "hint: https://rustup.rs installs it; rust-toolchain.toml says which version is used" >&2
    exit 1
}

output="$(mktemp)"
trap 'rm -f "$output"' EXIT
start=$SECONDS
code=0
"$cargo" test --workspace --no-fail-fast 2>&1 | tee "$output" || code=$?

awk -v code="$code" -v seconds="$((SECONDS - start))" '
    /^test result: / {
        for (field = 4; field < NF; field++) {
            if ($(field + 1) ~ /^passed/) passed += $field
            if ($(field + 1) ~ /^failed/) failed += $field
            if ($(field + 1) ~ /^ignored/) ignored += $field
        }
        suites++
    }
    /^test .* \.\.\. FAILED$/ || /^error: test failed/ { failures = failures "\n  " $0 }
    END {
        if (failures != "") print "\nfailed:" failures
        printf "\n%d test programs\n", suites
        result = (code == 0 && failed == 0 && passed > 0) ? "ok" : "FAILED"
        printf "test result: %s. %d passed; %d failed; %d ignored; 0 measured; 0 filtered out; finished in %d.00s\n",
            result, passed, failed, ignored, seconds
        exit result != "ok"
    }' "$output" || code=1
exit "$code"
