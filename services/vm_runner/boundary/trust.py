"""How programs of the guest find the run's authority, beside the bundles of the system."""

from typing import Final

AUTHORITY_FILE: Final = "/run/lns/ca.pem"
BUNDLE_FILE: Final = "/run/lns/ca-bundle.pem"
"""Written by the guest agent, `trust.h`."""

# Which program reads which variable was measured: docs/credentials.md has the table.
_ALL_ROOTS: Final = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
_AUTHORITY_ALONE: Final = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")


def trust_environment() -> dict[str, str]:
    """Returns the variables that programs which do not read the system's bundle look at."""
    return dict.fromkeys(_ALL_ROOTS, BUNDLE_FILE) | dict.fromkeys(_AUTHORITY_ALONE, AUTHORITY_FILE)
