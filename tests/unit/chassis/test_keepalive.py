"""Names of gRPC's options, which it ignores when it does not know them; and their values."""

import re
from pathlib import Path

import pytest
from grpc._cython import cygrpc

from services.chassis import channel, server
from services.chassis.keepalive import KEEPALIVE

_IN_LIBRARY = frozenset(re.findall(rb"grpc\.[a-z0-9_.]+", Path(cygrpc.__file__).read_bytes()))

_OPTIONS = [
    *channel.OPTIONS,
    *server.OPTIONS,
    *KEEPALIVE.client_options(),
    *KEEPALIVE.server_options(),
    ("grpc.service_config", ""),
]


@pytest.mark.parametrize("name", sorted({name for name, _ in _OPTIONS}))
def test_grpc_knows_the_option(name: str) -> None:
    assert name.encode() in _IN_LIBRARY


def test_a_name_that_grpc_does_not_know_is_noticed() -> None:
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms" not in _IN_LIBRARY
    assert b"grpc.keepalive_time" not in _IN_LIBRARY


def test_a_server_permits_the_pings_of_clients_that_come_a_little_early() -> None:
    assert KEEPALIVE.permitted_interval <= KEEPALIVE.client_interval / 2
