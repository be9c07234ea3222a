#!/bin/sh
# Runs the tests of the mapped store, the only crate with unsafe code, under a sanitizer of the nightly compiler:
#   scripts/sanitize.sh [address|thread] [arguments of `cargo test`]
# "thread" builds the standard library anew and needs its source: rustup component add rust-src --toolchain nightly
set -eu
cd "$(dirname "$0")/.."

sanitizer=${1:-address}
[ $# -eq 0 ] || shift
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "there is no nightly compiler; get one with: rustup toolchain install nightly --profile minimal" >&2
    exit 1
fi
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
case $sanitizer in
address) build_std= ;;
thread)
    # The standard library's own accesses count too. It does not know fences: what a fence alone orders is reported by
    # mistake, if it is not atomic.
    build_std=-Zbuild-std
    if [ ! -d "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library" ]; then
        echo "the source of the standard library is missing: rustup component add rust-src --toolchain nightly" >&2
        exit 1
    fi
    ;;
*)
    echo "unknown sanitizer $sanitizer; there are: address, thread" >&2
    exit 1
    ;;
esac

# Tests that let a reader die forget it on purpose, which is no leak of ours.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"
# The tests of schedules switch stacks by themselves, which a sanitizer takes for damage; they run no unsafe code of ours.
# shellcheck disable=SC2086
RUSTFLAGS="-Zsanitizer=$sanitizer" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/sanitize" \
    cargo +nightly test $build_std --target "$host" --package star-objstore --lib --tests "$@" -- --skip schedules::
