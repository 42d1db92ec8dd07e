"""One trace for many shards: a function receives the variables that it uses."""

import functools
from collections.abc import Hashable
from collections.abc import Iterator
from typing import Any
from typing import ClassVar
from typing import NamedTuple

import tensorflow as tf

from monolith_tf import connected
from monolith_tf.types import Nest
from monolith_tf.types import Tensor


class Bindable:
    """An object that can be copied onto the variables and tables of another.

    Attributes:
      own: Names of the attributes that differ between objects: variables, handles of
        tables and locks, other `Bindable`s, dictionaries of them, or None. Numbers are
        kept in variables: TensorFlow would trace another function for each constant.
      shared: Names of the attributes that all objects of one trace share: hashable
        values.
    """

    own: ClassVar[tuple[str, ...]] = ()
    shared: ClassVar[tuple[str, ...]] = ()

    def on_bound(self) -> None:
        """Called on a copy that so far has the `own` and `shared` attributes only."""


class Cell:
    """A variable behind a handle; only its dtype and rank are known."""

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

    def assign_add(self, delta: object) -> tf.Operation:
        """See `tf.Variable`."""
        return tf.raw_ops.AssignAddVariableOp(
            resource=self.handle, value=tf.convert_to_tensor(delta, self.dtype)
        )

    def assign_sub(self, delta: object) -> tf.Operation:
        """See `tf.Variable`."""
        return tf.raw_ops.AssignSubVariableOp(
            resource=self.handle, value=tf.convert_to_tensor(delta, self.dtype)
        )


class Packed:
    """All `own` attributes of an owner, as one variable of handles.

    A call then has two arguments, however many variables it uses; a graph of many calls
    would be large and slow to optimize otherwise. TensorFlow orders operations on a
    variable that it sees, but not those behind handles: the second argument orders
    calls.

    Args:
      owner: The object; only its form and its handles are kept.
      order: Another one that uses some of the same variables; their calls are ordered
        with each other. By default only calls of this one are.
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

    def call(self, method: str, *arguments: object, writes: bool = True) -> Nest:
        """Calls `owner.method(*arguments)`, traced once for all owners of one form.

        Runs on the current device, as one operation of the caller's graph.

        Args:
          method: Name of the method. It uses tensors and the attributes of `Bindable`.
          *arguments: Structures of tensors.
          writes: Whether it changes any of the owner's variables or tables.
        """
        arguments = tf.nest.map_structure(tf.convert_to_tensor, arguments)
        specs = tf.nest.map_structure(_spec, arguments)
        function = _function(self._kind, method, specs, writes)
        return function(self._handles.handle, self._order.handle, arguments)


class _Form(NamedTuple):
    """What owners that share a trace have in common."""

    type: Any  # Of the object; `dict` for a dictionary.
    shared: tuple[Hashable, ...]  # Values; names in a dictionary.
    own: tuple[Any, ...]  # Forms of the `own` attributes.


class _Kind:
    """A form that is hashed once instead of at every call."""

    def __init__(self, form: _Form) -> None:
        self.form = form


@functools.cache
def _kind(form: _Form) -> _Kind:
    return _Kind(form)


class _CellForm(NamedTuple):
    dtype: tf.DType
    rank: int


def _form(value: object) -> Any:
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


def _handles(value: object) -> list[Tensor]:
    """Returns the handles of an owner's `own` attributes, in the order of its form."""
    if isinstance(value, Bindable):
        own = [getattr(value, name) for name in value.own]
        return [handle for each in own for handle in _handles(each)]
    if isinstance(value, dict):
        return [handle for each in value.values() for handle in _handles(each)]
    if isinstance(value, tf.Variable):
        return [value.handle]
    return [] if value is None else [value]


def _size(form: object) -> int:
    """Returns the number of handles of a form."""
    if isinstance(form, _Form):
        return sum(map(_size, form.own))
    return 0 if form is None else 1


def _bound(form: object, handles: Iterator[Tensor]) -> Any:
    """Returns an owner that uses the variables of other handles."""
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
def _function(kind: _Kind, method: str, specs: object, writes: bool) -> Any:
    def function(packed: Tensor, order: Tensor, arguments: Nest) -> Nest:
        cell = Cell(order, tf.int64, 0)
        # TensorFlow does not see the variables behind the handles, so it could run
        # calls in any order. Touching this one variable keeps them in program order:
        # a write for calls that write, a read for others, which may overlap.
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
            # Inlining it would make every graph that calls it large.
            experimental_attributes={"_noinline": True},
        ).get_concrete_function(resource, resource, specs)
