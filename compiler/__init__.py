"""A pipeline of small passes from a trace to a bundle: snapshot, classify, ship, write, prove."""
