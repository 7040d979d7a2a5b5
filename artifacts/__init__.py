"""The files on disk and nothing else: trace, bundle, manifest, weights file, fingerprint."""
