"""Names that look like secrets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vm_runner.storage.secret_names import holds_secrets, is_secret, is_secret_inside

SECRET = (  # noqa: SIM905  # a list of words is read as one
    """
.env .env.local .env.production .envrc .ENV .Env.Local id_rsa id_ed25519 id_ecdsa_sk server.pem
tls.key TLS.KEY app.p12 app.pfx release.jks passwords.kdbx .netrc _netrc .npmrc .pypirc
.git-credentials .pgpass .htpasswd .dockercfg .aws .ssh .gnupg .kube kubeconfig kubeconfig.yaml
prod.kubeconfig credentials credentials.json credentials.yml Credentials.JSON secrets.yaml
secrets .secrets client_secret_1.json service-account.json service_account_prod.json
gcp-credentials.json terraform.tfstate prod.tfvars
"""
).split()

PLAIN = (  # noqa: SIM905  # a list of words is read as one
    """
.env.example .env.sample .env.template .environment env src README.md id_rsa.pub id_ed25519.pub
server.pem.md keys key monkey credentials.py credentials.go secrets.ts .git .github
.dockerignore .docker package.json Cargo.toml .config.yaml .bashrc a.env docker-compose.yml
"""
).split()


@pytest.mark.parametrize("name", SECRET)
def test_what_looks_like_a_secret_is_one(name: str) -> None:
    assert is_secret(name.encode())


@pytest.mark.parametrize("name", PLAIN)
def test_what_does_not_is_none(name: str) -> None:
    assert not is_secret(name.encode())


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (".docker", "config.json"),
        (".DOCKER", "Config.json"),
        (".cargo", "credentials.toml"),
        (".config", "gh"),
        (".m2", "settings.xml"),
    ],
)
def test_folders_of_other_things_hide_only_their_secrets(folder: str, name: str) -> None:
    assert is_secret_inside(folder.encode(), name.encode())
    assert holds_secrets(folder.encode())
    assert not is_secret(folder.encode())
    assert not is_secret_inside(folder.encode(), b"Dockerfile")
    assert not is_secret_inside(b"src", name.encode())


@pytest.mark.parametrize("name", [".e\u200bnv", "\ufeff.env", ".\uff45nv", "id_r\u00adsa"])
def test_what_a_file_system_may_take_for_the_same_name_is_the_same(name: str) -> None:
    assert is_secret(name.encode())


@given(st.binary(min_size=1, max_size=255))
def test_any_bytes_can_be_a_name(name: bytes) -> None:
    is_secret(name)
    is_secret_inside(name, name)
    assert is_secret(b".env." + name.replace(b"\n", b"")) or b"." in b".env." + name
