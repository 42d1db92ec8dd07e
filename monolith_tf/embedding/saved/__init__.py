"""Checkpoints of a store's tables: writing, reading and restoring."""
