"""Errors of a served model, and of a request."""

import grpc

# The message travels in headers, which gRPC limits to 8 KiB, percent-encoded.
_MOST_BYTES = 2000


class ServingError(ValueError):
    """A model cannot be served or updated; the message gives the reason."""


class NoRoomError(ServingError):
    """A served model has no room for more new ids."""


class RequestError(ValueError):
    """A request cannot be answered; the server continues.

    Attributes:
      code: The status a gRPC client sees.

    Args:
      code: See above.
      message: The reason; cut if it repeats too much of the request.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        whole = message.encode(errors="replace")
        if len(whole) > _MOST_BYTES:
            message = whole[:_MOST_BYTES].decode(errors="ignore") + " ..."
        super().__init__(message)
        self.code = code


def bad_request(message: str) -> RequestError:
    """Returns the error of an invalid request."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)
