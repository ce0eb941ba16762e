"""How both ends of a connection find out that the other one is gone, without data to send.

gRPC sends HTTP/2 pings over a connection that carries calls, and closes it when one is not
answered. A server ends connections whose clients ping it more often than it permits
(`GOAWAY … too_many_pings`), and by default it permits one ping in five minutes. So the client's
interval and what the server permits have to agree, and they are set here, for both.
"""

from dataclasses import dataclass

Options = list[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """Times of the pings of one connection, in seconds.

    Attributes:
        client_interval: from the last bytes that a client received to its ping.
        client_timeout: how long a client waits for the answer.
        server_interval: from the last bytes that a server received to its ping.
        server_timeout: how long a server waits for the answer.
        permitted_interval: the shortest interval of a client's pings that a server takes for
            honest; well below `client_interval`, since pings bunch up on a busy machine.
    """

    client_interval: float = 30
    client_timeout: float = 10
    server_interval: float = 60
    server_timeout: float = 20
    permitted_interval: float = 10

    def client_options(self) -> Options:
        """Returns the options of a client's channel."""
        return [
            ("grpc.keepalive_time_ms", _milliseconds(self.client_interval)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self.client_timeout)),
            # Else gRPC sends two pings and then falls back to one a minute, until there is data.
            ("grpc.http2.max_pings_without_data", 0),
        ]

    def server_options(self) -> Options:
        """Returns the options of a server."""
        return [
            ("grpc.keepalive_time_ms", _milliseconds(self.server_interval)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self.server_timeout)),
            ("grpc.http2.max_pings_without_data", 0),
            (
                "grpc.http2.min_ping_interval_without_data_ms",
                _milliseconds(self.permitted_interval),
            ),
            # A ping may arrive just after the last call has ended: no offence either.
            ("grpc.keepalive_permit_without_calls", 1),
        ]


KEEPALIVE = Keepalive()
"""The times of every connection of lns."""


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
