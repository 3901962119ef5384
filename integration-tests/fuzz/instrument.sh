#!/bin/sh
# RUSTC_WORKSPACE_WRAPPER of long runs: our packages report to libFuzzer which code an input reached and what it compared.
# Stable compilers pass this on to LLVM; dependencies stay as they are, and what is generic in them is compiled into ours.
# The test that starts the fuzzer is not linked with libFuzzer, to which it would report.
case " $* " in
*" --crate-name run "*) exec "$@" ;;
esac
exec "$@" -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=3 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares
