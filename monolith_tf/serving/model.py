"""One version of a model in a session, as a model server holds it."""

import pathlib
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from monolith_tf.export import dense_updates
from monolith_tf.export import versions
from monolith_tf.serving import errors

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Model:
    """A SavedModel, loaded by the session loader as in TF Serving.

    Attributes:
      path: Its folder.
      version: Its number.
      signatures: Signature key -> its `SignatureDef`.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Loads a version.

        Args:
          path: Its folder, named by the version number.

        Raises:
          ServingError: If it is not a SavedModel, or is damaged.
        """
        if not (path / versions.FILE).exists():
            raise errors.ServingError(
                f"{path} is not a SavedModel: it has no {versions.FILE}. "
                "`monolith-tf export` writes one."
            )
        self.path = path
        self.version = int(path.name)
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            meta_graph = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(path)
            )
        except Exception as error:  # The loader documents no errors of its own.
            self._session.close()
            reason = _reason(str(error)) or f"{type(error).__name__}."
            raise errors.ServingError(
                f"Cannot load {path}: {reason} The export is damaged or was made "
                "for another server; export it again."
            ) from error
        self.signatures: Mapping[str, meta_graph_pb2.SignatureDef] = {
            key: signature
            for key, signature in meta_graph.signature_def.items()
            if not key.startswith("__")
        }

    def close(self) -> None:
        """Frees the model's resources; it cannot answer requests afterwards."""
        self._session.close()

    def signature(self, key: str) -> meta_graph_pb2.SignatureDef:
        """Returns a signature.

        Args:
          key: Its key; if empty, the default one.

        Raises:
          RequestError: If there is no such signature.
        """
        key = key or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        if key not in self.signatures:
            raise errors.RequestError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"The model has no signature `{key}`. "
                f"It has: {_names(self.signatures)}.",
            )
        return self.signatures[key]

    def run(
        self,
        key: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Answers a request.

        Args:
          key: The signature's key; if empty, the default one.
          inputs: Input -> value, for all inputs of the signature.
          outputs: The requested outputs; if empty, all.

        Returns:
          Output -> value.

        Raises:
          RequestError: If the inputs do not match the signature, or the model rejects
            them.
        """
        signature = self.signature(key)
        _check_inputs(key, signature, inputs)
        unknown = sorted(set(outputs) - set(signature.outputs))
        if unknown:
            raise errors.bad_request(
                f"The signature has no output {_names(unknown)}. "
                f"It has: {_names(signature.outputs)}."
            )
        if len(set(outputs)) < len(outputs):
            raise errors.bad_request(
                f"An output must be requested once. Received: {_names(outputs)}."
            )
        fetched = {
            name: info.name
            for name, info in signature.outputs.items()
            if not outputs or name in outputs
        }
        fed = {signature.inputs[name].name: value for name, value in inputs.items()}
        try:
            found = self._session.run(fetched, fed)
        except tf.errors.OpError as error:
            code = _CODES.get(error.error_code, grpc.StatusCode.UNKNOWN)
            raise errors.RequestError(code, _reason(error.message)) from error
        except UnicodeDecodeError as error:
            # The message of an `OpError` repeats bytes of the request.
            message = error.object.decode(errors="replace")
            raise errors.bad_request(_reason(message)) from error
        # A scalar string comes as plain bytes.
        return {
            name: np.array(value, object) if isinstance(value, bytes) else value
            for name, value in found.items()
        }


def _check_inputs(
    key: str, signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, np.ndarray]
) -> None:
    wanted = signature.inputs
    missing = sorted(set(wanted) - set(inputs))
    unknown = sorted(set(inputs) - set(wanted))
    if missing or unknown:
        found = [f"lacks {_names(missing)}"] if missing else []
        found += [f"has {_names(unknown)}, which is none"] if unknown else []
        raise errors.bad_request(
            f"The request {' and '.join(found)} of the signature's inputs. "
            f"It takes: {_names(wanted)}."
        )
    for name, value in inputs.items():
        dtype = tf.as_dtype(wanted[name].dtype)
        if _dtype(value) != dtype:
            raise errors.bad_request(
                f"`{name}` must be of the type {dtype.name}. "
                f"Received: {_dtype(value).name}."
            )
        shape = tf.TensorShape(wanted[name].tensor_shape)
        if not shape.is_compatible_with(value.shape):
            raise errors.bad_request(
                f"`{name}` must have the shape {_shape(shape)}, where ? is any size. "
                f"Received: {list(value.shape)}."
            )
        # Bits of integers may look like NaN; the model itself checks dense weights.
        is_number = dtype.is_floating and key != dense_updates.KEY
        if is_number and np.isnan(value).any():
            row = int(np.argwhere(np.isnan(value))[0][0]) if value.ndim else 0
            raise errors.bad_request(
                f"`{name}` is NaN in row {row}, which training treats as missing. "
                "Send a number."
            )


def _dtype(value: np.ndarray) -> tf.DType:
    return tf.string if value.dtype.kind in "OSU" else tf.as_dtype(value.dtype)


def _shape(shape: tf.TensorShape) -> str:
    if shape.rank is None:
        return "?"
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _reason(message: str) -> str:
    """Returns the reason in an error of TensorFlow, without its nodes."""
    lines = message.partition("\n\t [[")[0].strip().splitlines()
    return lines[-1].strip().removesuffix(".") + "." if lines else ""
