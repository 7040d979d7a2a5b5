"""From the traced calls of init to the program that makes what depends on the event."""
