"""What init changes besides returning a state: what is kept, and what is a cause to run it."""
