"""The one place that switches TensorFlow to the Keras 2 API and checks it.

TensorFlow 2.21 resolves `tf.keras` at its first use: to Keras 3 unless the environment
variable `TF_USE_LEGACY_KERAS` is set by then. Our layers are `tf_keras` layers, and
libraries used with them, such as TensorFlow Recommenders, use `tf.keras`, so the two
must be the same.
"""

import os
import sys

_SWITCH = "TF_USE_LEGACY_KERAS"
_ON = ("1", "true", "True")


def use_keras_2() -> None:
    """Sets the Keras 2 switch for this process.

    Raises:
      ImportError: If the switch has another value, or if `tf.keras` was already used
        and is Keras 3 in this process.
    """
    value = os.environ.get(_SWITCH)
    if value is not None and value not in _ON:
        raise ImportError(
            f"monolith_tf needs Keras 2 (`tf_keras`) behind `tf.keras`. "
            f"Received: {_SWITCH}={value!r}. Unset it or set it to 1."
        )
    tensorflow = sys.modules.get("tensorflow")
    loader = getattr(tensorflow, "__dict__", {}).get("keras")
    # `keras` is a lazy loader until its first use, and then the module itself. Reading
    # the loader's dictionary does not resolve it.
    found = getattr(loader, "__dict__", {})
    version = found.get("_tfll_keras_version")
    is_keras_3 = str(found.get("__name__")).startswith("keras.")
    if is_keras_3 or version not in (None, "tf_keras"):
        raise ImportError(
            "`tf.keras` was used before `import monolith_tf` and is Keras 3 in this "
            "process. Import monolith_tf first, or set TF_USE_LEGACY_KERAS=1 in the "
            "environment."
        )
    os.environ[_SWITCH] = "1"
