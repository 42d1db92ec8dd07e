"""Restricts a server to its own address.

TensorFlow's gRPC server listens on all interfaces, whatever address the cluster gives
it. On Linux, a packet filter on the listening socket drops everything that is not sent
to the configured address; this needs no privilege.
"""

import contextlib
import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator

from absl import logging

from monolith_tf.distribute.task import split_address

_SO_ATTACH_FILTER = 26
_NETWORK_HEADER = 0x1_0000_0000 - 0x10_0000  # SKF_NET_OFF, as an unsigned number.
_LOAD_BYTE, _LOAD_WORD, _SHIFT_RIGHT, _JUMP_EQUAL, _RETURN = 0x30, 0x20, 0x74, 0x15, 6
_DESTINATION = {socket.AF_INET: (4, 16), socket.AF_INET6: (6, 24)}  # Version, offset.

Instruction = tuple[int, int, int, int]


def only_on(address: str) -> bool:
    """Makes this process' server accept only what is sent to its own address.

    Args:
      address: `host:port`, with the port on which the server listens.

    Returns:
      Whether that was possible. If not, a warning says why.
    """
    host, port = split_address(address)
    own = [found for found in _resolve(host) if _is_local(*found)]
    if not own:
        reason = f"{host} is not an address of this machine"
    elif not sys.platform.startswith("linux"):
        reason = "packet filters on sockets are a feature of Linux"
    else:
        program = _program(own)
        attached = [_attach(listener, program) for listener in _listeners(port)]
        if attached and all(attached):
            return True
        reason = "the system refused the packet filter"
    logging.warning(
        "The server at %s can be reached at all addresses of this machine, since %s. "
        "TensorFlow's servers have no access control: protect port %d by a firewall.",
        address,
        reason,
        port,
    )
    return False


def _resolve(host: str) -> list[tuple[int, bytes]]:
    """Returns family and packed form of each address of a host."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(
        {
            (int(family), socket.inet_pton(family, str(where[0]).partition("%")[0]))
            for family, _, _, _, where in found
        }
    )


def _is_local(family: int, packed: bytes) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((socket.inet_ntop(family, packed), 0))
        except OSError:
            return False
    return True


def _listeners(port: int) -> Iterator[socket.socket]:
    """Yields the sockets of this process that listen on a port."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as found:
                if (
                    found.family in _DESTINATION
                    and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                    and found.getsockname()[1] == port
                ):
                    yield found


def _program(addresses: list[tuple[int, bytes]]) -> list[Instruction]:
    """Returns a filter that passes what is sent to one of the addresses."""
    program: list[Instruction] = []
    for family, packed in addresses:
        version, offset = _DESTINATION[socket.AddressFamily(family)]
        words = struct.unpack(f"!{len(packed) // 4}I", packed)
        left = 2 * len(words) + 1  # Instructions of this address still to come.
        program += [
            (_LOAD_BYTE, 0, 0, _NETWORK_HEADER),
            (_SHIFT_RIGHT, 0, 0, 4),
            (_JUMP_EQUAL, 0, left, version),
        ]
        for place, word in enumerate(words):
            left -= 2
            program += [
                (_LOAD_WORD, 0, 0, _NETWORK_HEADER + offset + 4 * place),
                (_JUMP_EQUAL, 0, left, word),
            ]
        program.append((_RETURN, 0, 0, 0xFFFF_FFFF))
    return [*program, (_RETURN, 0, 0, 0)]


def _attach(listener: socket.socket, program: list[Instruction]) -> bool:
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(code)
    described = struct.pack("HL", len(program), ctypes.addressof(held))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except OSError:
        return False
    return True
