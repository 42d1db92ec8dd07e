"""What can go wrong with a served model, and with a request."""

import grpc

# Headers hold it, which gRPC limits to 8 KiB, and percent signs make it longer.
_MOST_BYTES = 2000


class ServingError(ValueError):
    """A model that cannot be served or brought up to date, with the reason."""


class RequestError(ValueError):
    """A request that cannot be answered; the server goes on.

    Attributes:
      code: The status a gRPC client sees.

    Args:
      code: See above.
      message: What is wrong; cut where it repeats too much of the request.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        whole = message.encode(errors="replace")
        if len(whole) > _MOST_BYTES:
            message = whole[:_MOST_BYTES].decode(errors="ignore") + " ..."
        super().__init__(message)
        self.code = code


def bad_request(message: str) -> RequestError:
    """Returns the error of a request that no model could answer as it is."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)
