"""Keras layers that own their tables."""
