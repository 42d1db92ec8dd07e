"""Training: steps, the loop around them, and actions between them."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "Action": "actions",
        "CheckpointDir": "checkpoint_dir",
        "CheckpointError": "checkpoint",
        "EverySteps": "actions",
        "InterruptedRun": "loop",
        "NonFiniteLossError": "loop",
        "OutOfMemoryError": "memory",
        "Run": "run",
    },
)
