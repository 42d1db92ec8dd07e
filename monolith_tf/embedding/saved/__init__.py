"""A store's tables in files: written, read, restored."""
