"""The agent: runs inside python.wasm, around IPython. Imported by nobody on the host."""
