"""One shard's rows: where they are, how they are made, updated and dropped."""
