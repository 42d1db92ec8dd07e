"""Row optimizers: what they are, and how they update rows."""
