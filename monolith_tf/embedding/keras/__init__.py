"""Keras layers with tables of their own."""
