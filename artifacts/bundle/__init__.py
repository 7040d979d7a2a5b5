"""The files of a template bundle: directory, manifest, weights, code pack, import cache."""

# Names in a bundle's folder that are looked for before anything heavy is imported.
MANIFEST = "manifest.json"
IMAGE_FOLDER = "image"  # the process image, which has a manifest of its own
