"""Which names in a bound directory look like secrets. Pure.

A name is enough: nobody opens the file to look. Names are compared without case and without
characters that are not seen, since some file systems do so too.
"""

import fnmatch
import re
import unicodedata
from collections.abc import Iterable

POLICY_FILE_NAME = "lns-policy.yaml"
"""The policy file of a project."""

_DATA = ("json", "yaml", "yml", "toml", "ini", "cfg", "conf", "xml", "csv", "txt", "env")

_SECRET = (
    ".env", ".env.*", ".envrc",
    "id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk",
    "*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "*.ovpn",
    ".netrc", "_netrc", ".npmrc", ".yarnrc.yml", ".pypirc", ".git-credentials", ".pgpass",
    ".my.cnf", ".htpasswd", ".boto", ".s3cfg", ".dockercfg", ".vault-token", ".terraformrc",
    ".lns-credentials.json", ".lns-registry-auth.json",
    ".aws", ".azure", ".ssh", ".gnupg", ".kube", ".password-store",
    "kubeconfig", "kubeconfig.*", "*.kubeconfig",
    "credentials", "secrets", ".credentials", ".secrets",
    *(f"{word}.{suffix}" for word in ("credentials", "secrets") for suffix in _DATA),
    "*-credentials.json", "*_credentials.json", "client_secret*.json", "service-account*.json",
    "service_account*.json", "*.tfstate", "*.tfvars",
)  # fmt: skip

_HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist", ".env.defaults")

_SECRET_INSIDE = {
    ".cargo": ("credentials", "credentials.toml"),
    ".config": ("gcloud", "gh", "hub"),
    ".docker": ("config.json",),
    ".gem": ("credentials",),
    ".m2": ("settings.xml", "settings-security.xml"),
}
"""Secrets in folders that also have other things in them."""


def _matcher(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))


_IS_SECRET = _matcher(_SECRET)
_IS_HARMLESS = _matcher(_HARMLESS)


def _plain(name: bytes) -> str:
    text = unicodedata.normalize("NFKC", name.decode("utf-8", "surrogateescape"))
    return "".join(c for c in text if unicodedata.category(c) != "Cf").casefold()


def is_policy(name: bytes) -> bool:
    """Returns whether a name is that of a project's policy file."""
    return _plain(name) == POLICY_FILE_NAME


def is_secret(name: bytes) -> bool:
    """Returns whether a file or folder at the top of a bind looks like a secret."""
    plain = _plain(name)
    return bool(_IS_SECRET.match(plain)) and not _IS_HARMLESS.match(plain)


def is_secret_inside(folder: bytes, name: bytes) -> bool:
    """Returns whether an entry of a folder at the top of a bind looks like a secret."""
    return _plain(name) in _SECRET_INSIDE.get(_plain(folder), ())


def holds_secrets(folder: bytes) -> bool:
    """Returns whether a folder of that name may hold secrets beside other things."""
    return _plain(folder) in _SECRET_INSIDE
