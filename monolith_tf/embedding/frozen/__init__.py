"""Read-only tables of an export."""
