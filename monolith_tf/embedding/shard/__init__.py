"""The rows of one shard: index, storage, updates, admission and expiry."""
