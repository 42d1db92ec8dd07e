"""TF Serving's REST interface, answered from the newest version of one model."""

import json
import math
import re
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse
from wsgiref.types import WSGIEnvironment

import grpc
from absl import logging
from google.protobuf import json_format  # type: ignore[import-untyped]
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import regression_pb2
from werkzeug import exceptions
from werkzeug import routing
from werkzeug import wrappers

from monolith_tf.export import dense_updates
from monolith_tf.export import roll_back
from monolith_tf.export import updates
from monolith_tf.serving import answers
from monolith_tf.serving import errors
from monolith_tf.serving import grpc_service
from monolith_tf.serving import json_values
from monolith_tf.serving import model as model_lib
from monolith_tf.serving import versions as versions_lib
from monolith_tf.types import JsonDict

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 412,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
}
_MODELS = ("/v1/models/<name>", "/v1/models/<name>/versions/<number:version>")
MAX_BODY_BYTES = 64 << 20
"""Limit of a request's body."""
_CHANGING = (updates.KEY, dense_updates.KEY, roll_back.KEY)
"""Signatures that change the model."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_TOO_DEEP = "The request's lists and objects are nested too deeply."


class _Number(routing.BaseConverter):
    """A version in a URL, with any number of digits."""

    regex = r"\d+"


class RestService:
    """A WSGI application: status, metadata, `:predict`, `:classify`, `:regress`."""

    def __init__(
        self,
        name: str,
        versions: versions_lib.Versions,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Creates the application.

        Args:
          name: The model's name in URLs.
          versions: The model.
          max_body_bytes: Limit of a request; a longer one gets status 413.
        """
        self._name = name
        self._versions = versions
        self._max_body_bytes = max_body_bytes
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
        self._routes = routing.Map(
            rules, converters={"number": _Number}, merge_slashes=False
        )

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
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
        except RecursionError:
            status, answer = 400, {"error": _TOO_DEEP}
        except Exception as error:
            logging.exception("A request failed.")
            status, answer = 500, {"error": f"{type(error).__name__}: {error}"}
        response = wrappers.Response(
            json.dumps(answer) + "\n", status, content_type="application/json"
        )
        return response(environ, start_response)

    def _answer(
        self,
        endpoint: Callable[..., object],
        request: wrappers.Request,
        name: str,
        version: str | None = None,
    ) -> Any:
        if name != self._name:
            raise exceptions.NotFound(
                f"There is no model `{name}` here. This server has `{self._name}`."
            )
        body = self._body(request) if request.method == "POST" else {}
        if body.get("signature_name") in _CHANGING:
            _check_origin(request, body["signature_name"])
        number = None
        if version is not None:
            # Python refuses to parse thousands of digits; no version has more than 19.
            number = int(version.lstrip("0")[:20] or 0)
        with self._versions.use(number) as model:
            return endpoint(model, body)

    def _body(self, request: wrappers.Request) -> JsonDict:
        too_large = exceptions.RequestEntityTooLarge(
            f"A request may have {self._max_body_bytes:,} bytes. Send fewer rows at "
            "once, or use gRPC."
        )
        # Werkzeug cuts a chunked body at the limit without an error.
        request.max_content_length = self._max_body_bytes + 1
        try:
            data = request.get_data()
        except exceptions.RequestEntityTooLarge:
            raise too_large from None
        except exceptions.HTTPException:
            raise
        except Exception as error:  # Chunks that are damaged.
            raise errors.bad_request(f"The request is damaged: {error}.") from None
        if len(data) > self._max_body_bytes:
            raise too_large
        try:
            body = json.loads(data.decode(), parse_float=_float)
            if _SURROGATE.search(data):
                json.dumps(body, ensure_ascii=False).encode()
        except errors.RequestError:
            raise
        except UnicodeError as error:
            raise errors.bad_request(
                f"The request is not valid Unicode: {error}."
            ) from None
        except ValueError as error:
            raise errors.bad_request(f"The request is not JSON: {error}.") from None
        if not isinstance(body, dict):
            raise errors.bad_request("The request must be a JSON object.")
        return body


def _float(digits: str) -> float:
    """Reads a number; raises RequestError where it is beyond those of 64 bits."""
    value = float(digits)
    if math.isinf(value):
        raise errors.bad_request(f"The request has a number beyond 64 bits: {digits}.")
    return value


def _check_origin(request: wrappers.Request, signature: str) -> None:
    """Refuses requests that a browser sends for a page of another site.

    `Host` is not used: the page's author controls it.
    """
    origin = request.headers.get("Origin")
    if origin is None:
        return
    server, port = request.environ["SERVER_NAME"], request.environ["SERVER_PORT"]
    scheme = request.environ["wsgi.url_scheme"]
    hosts = (f"[{server}]" if ":" in server else server, "localhost", "127.0.0.1")
    if origin not in {f"{scheme}://{host}:{port}" for host in (*hosts, "[::1]")}:
        raise errors.RequestError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"`{signature}` is refused to pages of other sites. "
            f"Received: Origin={origin!r}.",
        )


def _status(model: model_lib.Model, body: JsonDict) -> object:
    del body
    return json_format.MessageToDict(
        grpc_service.status(model.version),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def _metadata(model: model_lib.Model, body: JsonDict) -> object:
    del body
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    return json_format.MessageToDict(
        answers.metadata(model, request), preserving_proto_field_name=True
    )


def _predict(model: model_lib.Model, body: JsonDict) -> object:
    key = _signature_name(model, body)
    inputs, by_row = json_values.read_inputs(body, model.signature(key))
    return json_values.write_outputs(model.run(key, inputs), by_row)


def _classify(model: model_lib.Model, body: JsonDict) -> object:
    request = classification_pb2.ClassificationRequest()
    _fill_examples(model, request, body)
    result = answers.classify(model, request).result
    return {
        "results": [
            [[entry.label, entry.score] for entry in row.classes]
            for row in result.classifications
        ]
    }


def _regress(model: model_lib.Model, body: JsonDict) -> object:
    request = regression_pb2.RegressionRequest()
    _fill_examples(model, request, body)
    result = answers.regress(model, request).result
    return {"results": [row.value for row in result.regressions]}


def _fill_examples(
    model: model_lib.Model, request: answers.ExamplesRequest, body: JsonDict
) -> None:
    request.model_spec.signature_name = _signature_name(model, body)
    rows = body.get("examples")
    if not isinstance(rows, list) or not rows:
        raise errors.bad_request("`examples` must be a list of at least one example.")
    examples = request.input.example_list_with_context
    examples.examples.extend(json_values.read_example(row) for row in rows)
    examples.context.CopyFrom(json_values.read_example(body.get("context", {})))


def _signature_name(model: model_lib.Model, body: JsonDict) -> str:
    key = body.get("signature_name", "")
    if not isinstance(key, str):
        raise errors.bad_request(f"`signature_name` must be a string. Received: {key}.")
    try:
        model.signature(key)
    except errors.RequestError as error:
        # TF Serving's gRPC has another status for this.
        raise errors.bad_request(str(error)) from None
    return key
