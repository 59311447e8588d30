"""The worker process: owns one wasmtime engine and one guest. Imported by nobody."""
