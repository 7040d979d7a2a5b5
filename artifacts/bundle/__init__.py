"""The files of a template bundle: directory, manifest, weights, code pack, import cache."""
