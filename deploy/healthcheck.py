"""Asks an lns server for its health: `python healthcheck.py ADDRESS`; exits 0 while it serves.

ADDRESS is `unix:/path` or `host:port`. This is a container's health check, so it says in one line
what is wrong and gives up after three seconds.
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """Check the server as a whole; returns the exit code."""
    if len(arguments) != 1:
        print("usage: healthcheck.py ADDRESS", file=sys.stderr)
        return 2
    with grpc.insecure_channel(arguments[0]) as channel:
        probe = health_pb2_grpc.HealthStub(channel)
        try:
            answer = probe.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            print(f"{arguments[0]}: {error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        print(f"{arguments[0]}: {name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
