from wasi_kernel.frames import *
