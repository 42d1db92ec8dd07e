"""One trace for many shards: a function is given the variables that it works on."""

import functools
from collections.abc import Hashable
from collections.abc import Iterator
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


class Packed:
    """All that is an owner's own, as one variable of handles.

    So a call has two arguments, however much it works on: a graph of many calls would
    be large, and take long to optimize. TensorFlow, which orders what is done to one
    variable, does not see the others; it orders calls by the second argument.

    Args:
      owner: Lives no longer than this.
      order: Calls are ordered with those of this one, which works on some of the same
        variables; by default with each other only.
    """

    def __init__(self, owner: Bindable, order: "Packed | None" = None) -> None:
        self._kind = _kind(_form(owner))
        self._handles = tf.Variable(
            tf.stack(_handles(owner)), dtype=tf.resource, trainable=False
        )
        self._order: tf.Variable = (
            tf.Variable(0, dtype=tf.int64, trainable=False)
            if order is None
            else order._order
        )

    def call(self, method: str, *arguments: Any, writes: bool = True) -> Any:
        """`owner.method(*arguments)`, traced once for all owners that are alike.

        Runs on the device that is in force, as one operation of the caller's graph.

        Args:
          method: Its name. It works on tensors, and on what is the owner's own.
          *arguments: Structures of tensors.
          writes: Whether it changes what is the owner's own.
        """
        arguments = tf.nest.map_structure(tf.convert_to_tensor, arguments)
        specs = tf.nest.map_structure(_spec, arguments)
        function = _function(self._kind, method, specs, writes)
        return function(self._handles.handle, self._order.handle, arguments)


class _Form(NamedTuple):
    """What owners of one trace have in common."""

    type: Any  # Of the object; `dict` for a dictionary.
    shared: tuple[Hashable, ...]  # Values; names in a dictionary.
    own: tuple[Any, ...]  # Forms of what each has of its own.


class _Kind:
    """A form that is hashed once, and not at every call."""

    def __init__(self, form: _Form) -> None:
        self.form = form


@functools.cache
def _kind(form: _Form) -> _Kind:
    return _Kind(form)


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


def _handles(value: Any) -> list[Tensor]:
    """Of what is an owner's own, in the order of its form."""
    if isinstance(value, Bindable):
        own = [getattr(value, name) for name in value.own]
        return [handle for each in own for handle in _handles(each)]
    if isinstance(value, dict):
        return [handle for each in value.values() for handle in _handles(each)]
    if isinstance(value, tf.Variable):
        return [value.handle]
    return [] if value is None else [value]


def _size(form: Any) -> int:
    """How many handles there are."""
    if isinstance(form, _Form):
        return sum(map(_size, form.own))
    return 0 if form is None else 1


def _bound(form: Any, handles: Iterator[Tensor]) -> Any:
    """An owner with other variables."""
    if form is None:
        return None
    if isinstance(form, _CellForm):
        return Cell(next(handles), *form)
    if not isinstance(form, _Form):
        return next(handles)
    own = [_bound(each, handles) for each in form.own]
    if form.type is dict:
        return dict(zip(form.shared, own, strict=True))
    made = object.__new__(form.type)
    made.__dict__.update(zip(form.type.shared, form.shared, strict=True))
    made.__dict__.update(zip(form.type.own, own, strict=True))
    made.on_bound()
    return made


@connected.cached
def _function(kind: _Kind, method: str, specs: Any, writes: bool) -> Any:
    def function(packed: Tensor, order: Tensor, arguments: Any) -> Any:
        cell = Cell(order, tf.int64, 0)
        # What it returns does not matter, only whether it writes.
        cell.assign_add(0) if writes else cell.read_value()
        form = kind.form
        handles = tf.raw_ops.ReadVariableOp(resource=packed, dtype=tf.resource)
        owner = _bound(form, iter(tf.unstack(handles, num=_size(form))))
        return getattr(owner, method)(*arguments)

    resource = tf.TensorSpec([], tf.resource)
    with tf.init_scope(), tf.device(None):
        return tf.function(
            function,
            autograph=False,
            # A part of each graph that calls it would make those large.
            experimental_attributes={"_noinline": True},
        ).get_concrete_function(resource, resource, specs)
