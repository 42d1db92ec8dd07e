"""Publishing by a running job, as data."""

import dataclasses
import math

from monolith_tf import paths
from monolith_tf.distribute import task


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardSpec:
    """When an update is refused, by its predictions for labelled rows.

    The golden rows are rows that the job has trained on. Each update is first applied
    to one server, which then predicts them; see `docs/serving.md`.

    Attributes:
      rows: How many golden rows; at least 1.
      window_secs: Seconds after which newer rows take their place.
      log_loss_rise: The largest rise of a head's log loss, as a share of the log loss
        that the served model had on the same rows: 0.2 allows a fifth more. A rise of
        0.01 is always allowed.
      calibration: The smallest and the largest ratio of a head's mean prediction to
        its mean label. One beyond is refused if the served model's is nearer to 1.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    rows: int = 1024
    window_secs: float = 600.0
    log_loss_rise: float = 0.2
    calibration: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"`rows` must be at least 1. Received: rows={self.rows}.")
        for name in ("window_secs", "log_loss_rise"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"`{name}` must be finite and above 0. "
                    f"Received: {name}={getattr(self, name)}."
                )
        least, most = self.calibration
        if not 0.0 < least < 1.0 < most < math.inf:
            raise ValueError(
                "`calibration` must be one number in (0, 1) and one above 1. "
                f"Received: calibration={list(self.calibration)}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TlsSpec:
    """The PEM files with which a job connects to servers.

    Attributes:
      ca: Certificates of the CA that signed the servers'.
      cert: The job's certificate, for servers that require one.
      key: Its private key, without a password.
      server_name: The name in the servers' certificates; None takes the host.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    ca: str
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError(
                "`cert` and `key` must be given together. "
                f"Received: cert={self.cert}, key={self.key}."
            )
        for name in ("ca", "cert", "key"):
            if getattr(self, name) is not None:
                paths.check(name, getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishSpec:
    """To which model servers a running job sends what it has learned, and how often.

    Attributes:
      to: The servers' gRPC addresses, `host:port`; each replica is named.
      every_secs: Seconds between updates, above 0.
      name: The model's name on the servers.
      guard: When an update is refused; None refuses none.
      tls: Files for TLS; None connects without TLS.
      closing_secs: How long the end of a run waits for servers to take its last values.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    to: tuple[str, ...]
    every_secs: float = 1.0
    name: str = "default"
    guard: GuardSpec | None = GuardSpec()
    tls: TlsSpec | None = None
    closing_secs: float = 30.0

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError("`to` must name at least one server. Received: none.")
        for address in self.to:
            if not task.is_address(address):
                raise ValueError(
                    "`to` must be host:port, with a port from 1 to 65535. "
                    f"Received: {address!r}."
                )
        if not 0.0 < self.every_secs < math.inf:
            raise ValueError(
                "`every_secs` must be finite and above 0. "
                f"Received: every_secs={self.every_secs}."
            )
        if not 0.0 <= self.closing_secs < math.inf:
            raise ValueError(
                "`closing_secs` must be finite and not negative. "
                f"Received: closing_secs={self.closing_secs}."
            )
