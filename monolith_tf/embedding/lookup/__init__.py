"""From a batch of ids to rows, and from their gradients to updates."""
