#!/usr/bin/env bash
# Measures reads of the mapped store by number of keys and by size of values, beside LMDB, Redis and, where the
# Python given as PLASMA_PYTHON has pyarrow 11, Plasma. Writes mapped_reads.txt and mapped_reads.svg into DESIGN/benchmarks.
# Takes about ten minutes; 10,000,000 keys need 8 GB of /dev/shm.
set -euo pipefail
cd "$(dirname "$0")/.."

out=DESIGN/benchmarks/mapped_reads
cargo build --release -p star-replication --example reads
reads=${CARGO_TARGET_DIR:-target}/release/examples/reads

measure() {
    echo
    # Servers' files of the example go there too.
    TMPDIR=/dev/shm "$reads" "$1" "$2"
    if [ -n "${PLASMA_PYTHON:-}" ] && [ "$1" -le 100000 ]; then
        "$PLASMA_PYTHON" scripts/plasma-reads.py "$1" "$2"
    fi
}

{
    echo "$(date -u +%F), $(uname -sr), $(nproc) processors, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
    for keys in 1000 10000 100000 1000000 10000000; do measure "$keys" 100; done
    for size in "1000 0" "1000 1024" "1000 16384" "100 262144" "100 1048576" "16 16777216"; do measure $size; done
} | tee "$out.txt"
scripts/plot-reads.py "$out.txt" >"$out.svg"
