"""Records what the traced process does besides calling the function: imports, files, environment."""
