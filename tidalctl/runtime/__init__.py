"""Starts a function from its bundle: launch, map, restore, timeline, leave."""
