"""The signatures of an export and their checks: one class per kind."""

import abc
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from monolith_tf.export import examples as examples_lib
from monolith_tf.export.errors import ExportError
from monolith_tf.export.named_inputs import NamedInputs
from monolith_tf.features.columns import ColumnType
from monolith_tf.types import Tensor

PREDICT = tf.saved_model.PREDICT_METHOD_NAME
CLASSIFY = tf.saved_model.CLASSIFY_METHOD_NAME
REGRESS = tf.saved_model.REGRESS_METHOD_NAME

Answer: TypeAlias = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Raw columns -> predictions and extra outputs by name."""


class Signature(abc.ABC):
    """A function of an export.

    Attributes:
      method: The server method that uses it.
      specs: Its inputs.
      joins_rows: Whether each input has one entry per row of the answer, so a server
        can merge the requests of several clients.
    """

    method = PREDICT
    joins_rows = True
    specs: Mapping[str, tf.TensorSpec]

    def check(self, outputs: Mapping[str, tf.TensorSpec]) -> None:  # noqa: B027
        """Raises `ExportError` if it does not fit the network's outputs."""

    @abc.abstractmethod
    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Answers a request; traced once."""

    @abc.abstractmethod
    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Returns a request with the columns of real rows."""

    @abc.abstractmethod
    def expected(
        self, sample: Mapping[str, Tensor], answer: Answer
    ) -> dict[str, np.ndarray]:
        """Returns the expected answer to the request, from the network's answer."""


class Named(Signature):
    """Raw features by name; all outputs or one."""

    def __init__(
        self, inputs: NamedInputs, answer: Answer, output: str | None = None
    ) -> None:
        self.specs = inputs.specs()
        self.joins_rows = inputs.joins_rows
        self._inputs = inputs
        self._answer = answer
        self._output = output

    def check(self, outputs: Mapping[str, tf.TensorSpec]) -> None:
        """See base class."""
        if self._output is not None:
            _check_output(outputs, self._output, "output_signatures")

    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        return self._chosen(self._answer(self._inputs.decode(tensors)))

    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """See base class."""
        return self._inputs.encode(sample)

    def expected(
        self, sample: Mapping[str, Tensor], answer: Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        return self._chosen(numpy_answer(answer, sample))

    def _chosen(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if self._output is None:
            return outputs
        return {self._output: outputs[self._output]}


class Examples(Signature):
    """Serialized `tf.Example`s; all outputs."""

    input_name = "examples"

    def __init__(self, columns: Mapping[str, ColumnType], answer: Answer) -> None:
        name = self.input_name
        self.specs = {name: tf.TensorSpec([None], tf.string, name=name)}
        self._columns = dict(columns)
        self._answer = answer

    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        examples = tensors[self.input_name]
        return self._answer(examples_lib.parse(examples, self._columns))

    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """See base class."""
        examples = examples_lib.serialize(self._columns, sample)
        return {self.input_name: np.array(examples, object)}

    def expected(
        self, sample: Mapping[str, Tensor], answer: Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        return numpy_answer(answer, sample)


class _OneHead(Examples):
    input_name = "inputs"

    def __init__(
        self, columns: Mapping[str, ColumnType], answer: Answer, head: str
    ) -> None:
        super().__init__(columns, answer)
        self._head = head


class Regress(_OneHead):
    """One head, as the method `tensorflow/serving/regress` returns it."""

    method = REGRESS

    def check(self, outputs: Mapping[str, tf.TensorSpec]) -> None:
        """See base class."""
        _check_output(outputs, self._head, "regress")
        shape = outputs[self._head].shape
        if shape.rank != 1:
            raise ExportError(
                "`export.regress` must name heads of one number per row. "
                f"Received: head `{self._head}` of shape {shape}."
            )

    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        return {"outputs": super().call(**tensors)[self._head]}

    def expected(
        self, sample: Mapping[str, Tensor], answer: Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        return {"outputs": super().expected(sample, answer)[self._head]}


class Classify(_OneHead):
    """One head, as the method `tensorflow/serving/classify` returns it.

    A head of one number per row is the probability of class "1".
    """

    method = CLASSIFY

    def check(self, outputs: Mapping[str, tf.TensorSpec]) -> None:
        """See base class."""
        _check_output(outputs, self._head, "classify")

    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        scores = super().call(**tensors)[self._head]
        if scores.shape.rank == 1:
            scores = tf.stack([1.0 - scores, scores], axis=1)
        names = tf.constant([str(number) for number in range(scores.shape[1])])
        classes = tf.broadcast_to(names, tf.shape(scores))
        return {"classes": classes, "scores": scores}

    def expected(
        self, sample: Mapping[str, Tensor], answer: Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        scores = super().expected(sample, answer)[self._head]
        if scores.ndim == 1:
            scores = np.stack([1.0 - scores, scores], axis=1)
        names = [str(number).encode() for number in range(scores.shape[1])]
        classes = np.array([names] * len(scores), object)
        return {"classes": classes, "scores": scores}


def _check_output(outputs: Mapping[str, Tensor], name: str, option: str) -> None:
    if name not in outputs:
        raise ExportError(
            f"`export.{option}` must name outputs of the model. Received: {name!r}; "
            f"the model has {sorted(outputs)}."
        )


def numpy_answer(answer: Answer, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Returns a network's answer to columns as arrays."""
    return {name: value.numpy() for name, value in answer(dict(sample)).items()}


def num_rows(sample: Mapping[str, Tensor]) -> int:
    """Returns the number of rows of columns, arrays or ragged tensors."""
    return int(next(iter(sample.values())).shape[0])


def check_keys(keys: Sequence[str]) -> None:
    """Raises `ExportError` if two signatures have one key."""
    for key in keys:
        if keys.count(key) > 1:
            raise ExportError(
                f"Two signatures of the export would have the key `{key}`. Remove it "
                "from `export.output_signatures`, or rename the head."
            )
