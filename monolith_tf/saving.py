"""Detects functions that are traced for a SavedModel."""

import sys
import types

import tensorflow as tf
import tf_keras
from tensorflow.python.saved_model import save_context

_WRITE_OUT = tf_keras.export.ExportArchive.write_out.__code__


def is_saving() -> bool:
    """Returns whether functions are being traced for a SavedModel."""
    if tf.executing_eagerly():
        return False
    return save_context.in_save_context() or is_exporting()


def is_exporting() -> bool:
    """Returns whether `Model.export` runs, which traces functions before it saves."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is _WRITE_OUT:
            return True
        frame = frame.f_back
    return False
