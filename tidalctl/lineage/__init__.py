"""How tensors come to be: the tape of an init's operators, and the loaders that its tensors come from.

Stands below tracer, compiler and runtime, which record a tape, take tensors out of one, and answer one from a template.
"""
