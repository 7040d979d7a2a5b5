"""Takes the state of the plain function in a fresh process."""
