"""Process images: a template process on disk, restored as a fresh process whose imports are done."""
