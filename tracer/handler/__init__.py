"""Records the handler's calls (lax: first uses of weights, kernels)."""
