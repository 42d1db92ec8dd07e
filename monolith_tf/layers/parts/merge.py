"""Output shapes of layers whose result is a list of features."""

from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.types import Nest
from monolith_tf.types import Tensor


class MergeType:
    """How a list of feature embeddings is merged."""

    CONCAT = "concat"
    STACK = "stack"
    NONE = None


def check_merge_type(name: str, merge_type: str | None) -> str | None:
    """Returns `merge_type` if it is known; raises `ValueError` otherwise."""
    if merge_type not in (MergeType.CONCAT, MergeType.STACK, MergeType.NONE):
        raise ValueError(
            f"`{name}` must be 'concat', 'stack' or None. "
            f"Received: {name}={merge_type!r}."
        )
    return merge_type


def merge_tensor_list(
    tensor_list: Nest,
    merge_type: str | None = MergeType.CONCAT,
    num_feature: int | None = None,
    axis: int = 1,
    keep_list: bool = False,
) -> Nest:
    """Merges feature embeddings into one tensor, or splits one tensor into a list.

    One tensor of rank 3 is read as `[batch, features, dim]`; one of rank 2 as
    `[batch, features * dim]` where `num_feature` is above 1, and as a single feature
    otherwise.

    Args:
      tensor_list: One tensor, or a list of tensors `[batch, ...]`. Not changed.
      merge_type: "concat" for `[batch, sum of dims]`, "stack" for
        `[batch, features, dim]`, None for a list.
      num_feature: Features in a tensor of rank 2.
      axis: Axis on which several tensors are concatenated or stacked.
      keep_list: Returns a single tensor as a list of one.

    Returns:
      A tensor, or a list of tensors where `merge_type` is None or `keep_list` is True.

    Raises:
      ValueError: If `merge_type` is unknown, there is no tensor, or a single tensor has
        another rank or a width that `num_feature` does not divide.

    Example:
      >>> merge_tensor_list(tf.ones([8, 3, 4]), "concat").shape
      TensorShape([8, 12])
    """
    check_merge_type("merge_type", merge_type)
    several = isinstance(tensor_list, Sequence)
    tensors = list(tensor_list) if several else [tensor_list]
    if not tensors:
        raise ValueError(
            "`tensor_list` must hold at least one tensor. Received: tensor_list=[]."
        )
    if len(tensors) == 1:
        merged = _merge_one(tensors[0], merge_type, num_feature)
    elif merge_type == MergeType.CONCAT:
        merged = tf.concat(tensors, axis=axis)
    elif merge_type == MergeType.STACK:
        merged = tf.stack(tensors, axis=axis)
    else:
        merged = tensors
    return [merged] if keep_list and not isinstance(merged, list) else merged


def _merge_one(tensor: Tensor, merge_type: str | None, num_feature: int | None) -> Nest:
    """Merges or splits a single tensor; see `merge_tensor_list`."""
    tensor = tf.convert_to_tensor(tensor) if not hasattr(tensor, "shape") else tensor
    shape = tensor.shape
    if shape.rank not in (2, 3):
        raise ValueError(
            "`tensor_list` of one tensor must have rank 2 or 3. "
            f"Received: tensor_list[0].shape={shape}."
        )
    if shape.rank == 2 and (num_feature is None or num_feature <= 1):
        return [tensor] if merge_type is MergeType.NONE else tensor
    if shape.rank == 2 and merge_type == MergeType.CONCAT:
        return tensor
    if shape.rank == 2:
        width = shape[1]
        if width is None or num_feature is None or width % num_feature:
            raise ValueError(
                "`num_feature` must divide the tensor's width. "
                f"Received: num_feature={num_feature}, width={width}."
            )
        dims = [num_feature, width // num_feature]
        tensor = tf.reshape(tensor, [tf.shape(tensor)[0], *dims])
    elif merge_type == MergeType.CONCAT:
        if shape[1] is None or shape[2] is None:
            raise ValueError(
                "`tensor_list` of one tensor must have known features and dim. "
                f"Received: tensor_list[0].shape={shape}."
            )
        return tf.reshape(tensor, [tf.shape(tensor)[0], shape[1] * shape[2]])
    return tf.unstack(tensor, axis=1) if merge_type is MergeType.NONE else tensor
