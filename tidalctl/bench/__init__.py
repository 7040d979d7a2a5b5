"""Fresh-process cold starts, the plain function's against the bundle's. Nothing in here imports torch."""
