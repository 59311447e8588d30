"""Filters of what a guest wants shown, one module for each kind of content; see frontend.py.

Pure: nothing here does I/O, reads a clock or knows of a kernel. Each filter is safe for any input,
and gives for its own output the same again.
"""
