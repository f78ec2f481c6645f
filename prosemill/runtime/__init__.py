"""Child processes, the GPU lock, the cache of compiled kernels, progress."""
