"""From a batch of ids to rows, and from gradients to updates."""
