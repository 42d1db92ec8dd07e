"""Row optimizers: their specs, and how they update rows."""
