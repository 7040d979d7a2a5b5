"""Records one invocation: imports, lineage (strict), first uses (lax), kernels from the profiler."""
