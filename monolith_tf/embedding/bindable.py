"""One trace for many shards: a function is given the variables that it works on."""

from collections.abc import Hashable
from typing import Any
from typing import ClassVar
from typing import NamedTuple

import tensorflow as tf

from monolith_tf import connected
from monolith_tf.types import Tensor


class Bindable:
    """Has variables, tables and numbers of its own, and can be given others.

    Attributes:
      own: Names of attributes that each object has of its own: variables, handles of
        tables and locks, other `Bindable`s, dictionaries of them, or None. Numbers are
        kept in variables: TensorFlow would make another function of each constant.
      shared: Names of attributes that all objects of one trace share: values that can
        be hashed.
    """

    own: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()

    def on_bound(self) -> None:
        """Called on a copy with other variables, which has no further attributes."""


class Cell:
    """A variable by its handle, of which only the type and the rank are known."""

    def __init__(self, handle: Tensor, dtype: tf.DType, rank: int) -> None:
        self.handle = handle
        self.dtype = dtype
        self._shape = [None] * rank

    def read_value(self) -> Tensor:
        """See `tf.Variable`."""
        value = tf.raw_ops.ReadVariableOp(resource=self.handle, dtype=self.dtype)
        return tf.ensure_shape(value, self._shape)

    def sparse_read(self, indices: Tensor) -> Tensor:
        """See `tf.Variable`."""
        rows = tf.raw_ops.ResourceGather(
            resource=self.handle, indices=indices, dtype=self.dtype
        )
        return tf.ensure_shape(rows, [*indices.shape, *self._shape[1:]])

    def assign_add(self, delta: Any) -> tf.Operation:
        """See `tf.Variable`."""
        return tf.raw_ops.AssignAddVariableOp(
            resource=self.handle, value=tf.convert_to_tensor(delta, self.dtype)
        )

    def assign_sub(self, delta: Any) -> tf.Operation:
        """See `tf.Variable`."""
        return tf.raw_ops.AssignSubVariableOp(
            resource=self.handle, value=tf.convert_to_tensor(delta, self.dtype)
        )


def call(owner: Bindable, method: str, *arguments: Any) -> Any:
    """`owner.method(*arguments)`, traced once for all owners that are alike.

    Runs on the device that is in force, as one operation of the caller's graph.

    Args:
      owner: Whose method it is.
      method: Its name. It works on tensors, and on what is the owner's own.
      *arguments: Structures of tensors.
    """
    arguments = tf.nest.map_structure(tf.convert_to_tensor, arguments)
    specs = tf.nest.map_structure(_spec, arguments)
    return _function(_form(owner), method, specs)(_tensors(owner), arguments)


class _Form(NamedTuple):
    """What owners of one trace have in common."""

    type: Any  # Of the object; `dict` for a dictionary.
    shared: tuple[Hashable, ...]  # Values; names in a dictionary.
    own: tuple[Any, ...]  # Forms of what each has of its own.


class _CellForm(NamedTuple):
    dtype: tf.DType
    rank: int


def _form(value: Any) -> Any:
    if isinstance(value, Bindable):
        shared = tuple(getattr(value, name) for name in value.shared)
        own = tuple(_form(getattr(value, name)) for name in value.own)
        return _Form(type(value), shared, own)
    if isinstance(value, dict):
        return _Form(dict, tuple(value), tuple(map(_form, value.values())))
    if isinstance(value, tf.Variable):
        return _CellForm(value.dtype, value.shape.rank)
    return None if value is None else _spec(value)


def _spec(value: Tensor) -> tf.TensorSpec:
    rank = value.shape.rank
    return tf.TensorSpec(None if rank is None else [None] * rank, value.dtype)


def _tensors(value: Any) -> Any:
    """What is an owner's own, as a structure of tensors."""
    if isinstance(value, Bindable):
        return tuple(_tensors(getattr(value, name)) for name in value.own)
    if isinstance(value, dict):
        return tuple(map(_tensors, value.values()))
    if isinstance(value, tf.Variable):
        return value.handle
    return () if value is None else value


def _specs(form: Any) -> Any:
    """Those of `_tensors`."""
    if isinstance(form, _Form):
        return tuple(map(_specs, form.own))
    if isinstance(form, _CellForm):
        return tf.TensorSpec([], tf.resource)
    return () if form is None else form


def _bound(form: Any, tensors: Any) -> Any:
    """An owner with other variables."""
    if isinstance(form, _CellForm):
        return Cell(tensors, *form)
    if not isinstance(form, _Form):
        return None if form is None else tensors
    own = [_bound(each, given) for each, given in zip(form.own, tensors, strict=True)]
    if form.type is dict:
        return dict(zip(form.shared, own, strict=True))
    made = object.__new__(form.type)
    made.__dict__.update(zip(form.type.shared, form.shared, strict=True))
    made.__dict__.update(zip(form.type.own, own, strict=True))
    made.on_bound()
    return made


@connected.cached
def _function(form: _Form, method: str, specs: Any) -> Any:
    def function(tensors: Any, arguments: Any) -> Any:
        return getattr(_bound(form, tensors), method)(*arguments)

    with tf.init_scope(), tf.device(None):
        return tf.function(
            function,
            autograph=False,
            # A part of each graph that calls it would make those large.
            experimental_attributes={"_noinline": True},
        ).get_concrete_function(_specs(form), specs)
