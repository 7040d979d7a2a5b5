"""The process of a start: timeline, garbage collector, frames, exit."""
