from wasi_kernel.frames import *  # noqa: F403 - all of it, by its guest name
