"""The specs of row optimizers under their public name; see `optimizers.specs`."""

from monolith_tf.embedding.optimizers.specs import *  # noqa: F403
from monolith_tf.embedding.optimizers.specs import __all__ as __all__
