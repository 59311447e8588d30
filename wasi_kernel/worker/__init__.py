"""The worker process: owns one wasmtime engine and one guest. Imported by nobody."""

THREAD_STACK_EXTRA = 8 << 20
"""Bytes of a guest's thread's stack beyond the wasm stack; 2 MiB is wasmtime's least."""
