"""What can go wrong with a served model, and with a request."""

import grpc


class ServingError(ValueError):
    """A model that cannot be served or brought up to date, with the reason."""


class RequestError(ValueError):
    """A request that cannot be answered; the server goes on.

    Attributes:
      code: The status a gRPC client sees.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def bad_request(message: str) -> RequestError:
    """Returns the error of a request that no model could answer as it is."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)
