"""Public name of the row optimizers' specs; see `optimizers.specs`."""

from monolith_tf.embedding.optimizers.specs import *  # noqa: F403
from monolith_tf.embedding.optimizers.specs import __all__ as __all__
