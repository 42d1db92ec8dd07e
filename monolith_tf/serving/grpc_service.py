"""TF Serving's gRPC services, answered from the newest version of one model."""

from collections.abc import Callable
from typing import Any

import grpc
from absl import logging
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis import regression_pb2
from tensorflow_serving.apis import status_pb2

from monolith_tf.serving import answers
from monolith_tf.serving import errors
from monolith_tf.serving import model as model_lib
from monolith_tf.serving import versions as versions_lib


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers `Predict`, `Classify`, `Regress` and `GetModelMetadata`."""

    def __init__(self, name: str, versions: versions_lib.Versions) -> None:
        """Creates the service.

        Args:
          name: The model's name in requests.
          versions: The model.
        """
        self._name = name
        self._versions = versions

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Answers named tensors."""
        return self._answer(answers.predict, request, context)

    def Classify(
        self,
        request: classification_pb2.ClassificationRequest,
        context: grpc.ServicerContext,
    ) -> classification_pb2.ClassificationResponse:
        """Answers examples with classes."""
        return self._answer(answers.classify, request, context)

    def Regress(
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Answers examples with numbers."""
        return self._answer(answers.regress, request, context)

    def GetModelMetadata(
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures."""
        return self._answer(answers.metadata, request, context)

    def _answer(
        self,
        function: Callable[[model_lib.Model, answers.Request], answers.Response],
        request: answers.Request,
        context: grpc.ServicerContext,
    ) -> Any:
        try:
            version = check_spec(self._name, request.model_spec)
            with self._versions.use(version) as model:
                return function(model, request)
        except errors.RequestError as error:
            context.abort(error.code, str(error))
        except Exception as error:
            logging.exception("A request failed.")
            text = f"{type(error).__name__}: {error}"
            context.abort(grpc.StatusCode.INTERNAL, text)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Answers `GetModelStatus`."""

    def __init__(self, name: str, versions: versions_lib.Versions) -> None:
        """Creates the service; see `PredictionService`."""
        self._name = name
        self._versions = versions

    def GetModelStatus(
        self,
        request: get_model_status_pb2.GetModelStatusRequest,
        context: grpc.ServicerContext,
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the status of the current version."""
        try:
            version = check_spec(self._name, request.model_spec)
            with self._versions.use(version) as model:
                return status(model.version)
        except errors.RequestError as error:
            context.abort(error.code, str(error))


def status(version: int) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the status of an available version."""
    response = get_model_status_pb2.GetModelStatusResponse()
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    fine = status_pb2.StatusProto()
    response.model_version_status.add(version=version, state=available, status=fine)
    return response


def check_spec(name: str, spec: model_pb2.ModelSpec) -> int | None:
    """Returns the version that a request names, if any.

    Raises:
      RequestError: If it names another model, or a label.
    """
    if spec.name != name:
        raise errors.RequestError(
            grpc.StatusCode.NOT_FOUND,
            f"There is no model `{spec.name}` here. This server has `{name}`.",
        )
    if spec.version_label:
        raise errors.bad_request(
            f"Version labels are not supported. Received: {spec.version_label!r}."
        )
    return spec.version.value if spec.HasField("version") else None
