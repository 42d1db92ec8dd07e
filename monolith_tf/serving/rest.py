"""TF Serving's REST interface, answered from the newest version of one model."""

import json
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import grpc
from absl import logging
from google.protobuf import json_format  # type: ignore[import-untyped]
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import regression_pb2
from werkzeug import exceptions
from werkzeug import routing
from werkzeug import wrappers

from monolith_tf.serving import answers
from monolith_tf.serving import errors
from monolith_tf.serving import grpc_service
from monolith_tf.serving import json_values
from monolith_tf.serving import model as model_lib
from monolith_tf.serving import versions as versions_lib

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 412,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
}
_MODELS = ("/v1/models/<name>", "/v1/models/<name>/versions/<int:version>")


class RestService:
    """A WSGI application: status, metadata, `:predict`, `:classify`, `:regress`."""

    def __init__(self, name: str, versions: versions_lib.Versions) -> None:
        """Makes the application.

        Args:
          name: What addresses call the model.
          versions: The model.
        """
        self._name = name
        self._versions = versions
        rules = []
        for path in _MODELS:
            rules.append(routing.Rule(path, methods=["GET"], endpoint=_status))
            rules.append(
                routing.Rule(f"{path}/metadata", methods=["GET"], endpoint=_metadata)
            )
            for verb, function in (
                ("predict", _predict),
                ("classify", _classify),
                ("regress", _regress),
            ):
                rules.append(
                    routing.Rule(f"{path}:{verb}", methods=["POST"], endpoint=function)
                )
        self._routes = routing.Map(rules)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answers a request; see PEP 3333."""
        request = wrappers.Request(environ)
        status = 200
        try:
            endpoint, values = self._routes.bind_to_environ(environ).match()
            answer = self._answer(endpoint, request, **values)
        except exceptions.HTTPException as error:
            status, answer = error.code or 500, {"error": error.description}
        except errors.RequestError as error:
            status, answer = _HTTP_STATUS.get(error.code, 500), {"error": str(error)}
        except Exception as error:
            logging.exception("A request could not be answered.")
            status, answer = 500, {"error": f"{type(error).__name__}: {error}"}
        response = wrappers.Response(
            json.dumps(answer) + "\n", status, content_type="application/json"
        )
        return response(environ, start_response)

    def _answer(
        self,
        endpoint: Callable[..., Any],
        request: wrappers.Request,
        name: str,
        version: int | None = None,
    ) -> Any:
        if name != self._name:
            raise exceptions.NotFound(
                f"There is no model `{name}` here. This server has `{self._name}`."
            )
        body = _body(request) if request.method == "POST" else {}
        with self._versions.use(version) as model:
            return endpoint(model, body)


def _body(request: wrappers.Request) -> dict[str, Any]:
    try:
        body = json.loads(request.get_data())
    except ValueError as error:
        raise errors.bad_request(f"The request is no JSON: {error}.") from None
    if not isinstance(body, dict):
        raise errors.bad_request("The request must be a JSON object.")
    return body


def _status(model: model_lib.Model, body: dict[str, Any]) -> Any:
    del body
    return json_format.MessageToDict(
        grpc_service.status(model.version),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def _metadata(model: model_lib.Model, body: dict[str, Any]) -> Any:
    del body
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    return json_format.MessageToDict(
        answers.metadata(model, request), preserving_proto_field_name=True
    )


def _predict(model: model_lib.Model, body: dict[str, Any]) -> Any:
    key = _signature_name(body)
    inputs, by_row = json_values.read_inputs(body, model.signature(key))
    return json_values.write_outputs(model.run(key, inputs), by_row)


def _classify(model: model_lib.Model, body: dict[str, Any]) -> Any:
    request = classification_pb2.ClassificationRequest()
    _fill_examples(request, body)
    result = answers.classify(model, request).result
    return {
        "results": [
            [[entry.label, entry.score] for entry in row.classes]
            for row in result.classifications
        ]
    }


def _regress(model: model_lib.Model, body: dict[str, Any]) -> Any:
    request = regression_pb2.RegressionRequest()
    _fill_examples(request, body)
    result = answers.regress(model, request).result
    return {"results": [row.value for row in result.regressions]}


def _fill_examples(request: Any, body: dict[str, Any]) -> None:
    request.model_spec.signature_name = _signature_name(body)
    rows = body.get("examples")
    if not isinstance(rows, list) or not rows:
        raise errors.bad_request("`examples` must be a list of at least one example.")
    examples = request.input.example_list_with_context
    examples.examples.extend(json_values.read_example(row) for row in rows)
    examples.context.CopyFrom(json_values.read_example(body.get("context", {})))


def _signature_name(body: dict[str, Any]) -> str:
    key = body.get("signature_name", "")
    if not isinstance(key, str):
        raise errors.bad_request(f"`signature_name` must be a string. Received: {key}.")
    return key
