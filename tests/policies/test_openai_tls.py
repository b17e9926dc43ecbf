"""The OpenAI client over TLS, as the real service is asked: whom it trusts, what it tries again."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.journal import Journal
from pipeline.policies import openai_client
from pipeline.policies.ledger import Ledger
from pipeline.policies.openai import OpenAI
from pipeline.policies.protocol import PolicyError
from tests.policies.fault_server import Fault, FaultServer
from tests.policies.openai_world import KEY, ask, config, request


def certificate(place: Path, name: str) -> Path:
    """A self-signed certificate and its key in one file; `name` is as in `IP:127.0.0.1`."""
    key, signed, both = (place / f"{file}.pem" for file in ("key", "signed", "both"))
    command = (
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-keyout", str(key), "-out", str(signed), "-days", "2"),
        *("-subj", "/CN=test", "-addext", f"subjectAltName={name}"),
    )
    subprocess.run(command, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + signed.read_bytes())
    return both


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("ours"), "IP:127.0.0.1")


@pytest.fixture(scope="module")
def anothers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("anothers"), "DNS:api.example.org")


@pytest.fixture(autouse=True)
def trusted_authorities_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    openai_client._certificates.cache_clear()
    yield
    openai_client._certificates.cache_clear()


def serving(certificate: Path) -> FaultServer:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    return FaultServer(tls=tls)


def test_a_certificate_that_nobody_vouches_for_is_one_clear_error_at_the_first_try(
    ours: Path, tmp_path: Path
) -> None:
    with serving(ours) as server:
        policy = OpenAI(config(server), Journal(tmp_path))
        with pytest.raises(PolicyError, match=r"trusted.*SSL_CERT_FILE.*self-signed"):
            policy.preflight()
        policy.close()
    assert server.connections == 1


def test_a_certificate_of_another_server_is_one_clear_error_at_the_first_try(
    anothers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(anothers))
    with serving(anothers) as server:
        policy = OpenAI(config(server), Journal(tmp_path))
        with pytest.raises(PolicyError, match=r"no trusted certificate.*127\.0\.0\.1"):
            policy.preflight()
        policy.close()
    assert server.connections == 1


def test_a_connection_that_is_reset_within_an_answer_is_asked_again_and_may_have_been_paid(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ours))
    with serving(ours) as server:
        server.faults.append(Fault(200, body=b'{"id": "resp', missing_bytes=100, reset=True))
        policy = OpenAI(config(server, budget_usd=1.0), Journal(tmp_path))
        assert ask(policy, request("p"))["p", 0].text == "answer to Problem p"
        policy.close()
    assert len(server.calls) == 2
    assert Ledger(str(tmp_path / "spending")).others("").promised_usd > 0.01
