"""The user's function: found, imported, called; its events, outputs and process settings."""
