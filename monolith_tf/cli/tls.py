"""The arguments of sub-commands that connect or listen by TLS."""

import argparse
from typing import Any

from monolith_tf.cli import errors


def add_arguments(parser: argparse.ArgumentParser, *, ca: str, cert: str) -> None:
    """Adds `--tls-ca`, `--tls-cert` and `--tls-key`.

    Args:
      parser: The parser of the sub-command.
      ca: The help text of `--tls-ca`.
      cert: The help text of `--tls-cert`.
    """
    parser.add_argument("--tls-ca", metavar="FILE", help=ca)
    parser.add_argument("--tls-cert", metavar="FILE", help=cert)
    parser.add_argument(
        "--tls-key", metavar="FILE", help="the private key of --tls-cert"
    )


def check(arguments: argparse.Namespace) -> None:
    """Checks that a certificate has its key.

    Raises:
      UsageError: If only one of them is given.
    """
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise errors.UsageError("--tls-cert and --tls-key must be given together.")


def read(arguments: argparse.Namespace, **options: Any) -> Any:
    """Returns a `serving.tls.Tls` made of the arguments; None if they ask for no TLS.

    Args:
      arguments: The arguments of the sub-command.
      **options: Other arguments of `Tls`.
    """
    if arguments.tls_ca is None and arguments.tls_cert is None:
        return None
    from monolith_tf.serving import tls

    return tls.Tls(
        ca=arguments.tls_ca,
        cert=arguments.tls_cert,
        key=arguments.tls_key,
        **options,
    )
