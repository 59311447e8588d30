from wasi_kernel.alternatives import *  # noqa: F403 - all of it, by its guest name
