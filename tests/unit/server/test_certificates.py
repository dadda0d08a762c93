from __future__ import annotations

import datetime
import ssl
import sys
import time
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from umbel.errors import CorruptFile, StoreError, UsageError
from umbel.server.certificates import AUTHORITY_LIFE, DAY, RENEW, SERVER_LIFE, Authority, check_name, problem

NOW = 1_800_000_000.0
LONGEST = 340  # bytes of the authority's certificate, most of which are key, signature and dates
NAME = "fed.example.org"


def leaf(authority: Authority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.certificate_pem)


def names(authority: Authority) -> set[str]:
    found = leaf(authority).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}


def shake_hands(authority: Authority, directory: Path, host: str) -> None:
    """Have a strict client and a server with these certificates come to terms, in memory."""
    (directory / "chain.pem").write_bytes(authority.key_pem + authority.certificate_pem)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(directory / "chain.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_verify_locations(cadata=authority.authority_der)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


class TestOwn:
    """`Authority.open`: the server's own authority."""

    def test_what_is_made(self, tmp_path: Path) -> None:
        made = Authority.open(tmp_path / "tls", [NAME, "192.0.2.1"], NOW)
        root = x509.load_der_x509_certificate(made.authority_der)
        assert made.expires == root.not_valid_after_utc.timestamp() == NOW + AUTHORITY_LIFE
        assert root.not_valid_before_utc.timestamp() == leaf(made).not_valid_before_utc.timestamp() == NOW - DAY
        assert leaf(made).not_valid_after_utc.timestamp() == NOW + SERVER_LIFE == made.renewed + RENEW
        assert names(made) == {NAME, "192.0.2.1", "localhost", "127.0.0.1", "::1"}
        assert made.names == (NAME, "192.0.2.1")
        assert made.warning(NOW) == ""
        for certificate in (root, leaf(made)):
            key = certificate.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert isinstance(key.curve, ec.SECP256R1)

    def test_the_authority_is_short(self, tmp_path: Path) -> None:
        assert len(Authority.open(tmp_path, [], NOW).authority_der) <= LONGEST

    def test_keys_are_for_their_owner_alone(self, tmp_path: Path) -> None:
        Authority.open(tmp_path / "tls", [NAME], NOW)
        files = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "tls").iterdir()}
        assert set(files) == {"authority.pem", "server.pem", "ca.crt"}
        assert b"PRIVATE" not in (tmp_path / "tls" / "ca.crt").read_bytes()
        if sys.platform != "win32":
            assert files["authority.pem"] == files["server.pem"] == 0o600

    @pytest.mark.parametrize("host", [NAME, "192.0.2.1", "localhost", "127.0.0.1", "::1"])
    def test_strict_programs_accept_it(self, tmp_path: Path, host: str) -> None:
        shake_hands(Authority.open(tmp_path, [NAME, "192.0.2.1"], time.time()), tmp_path, host)

    def test_another_name_or_another_authority_is_refused(self, tmp_path: Path) -> None:
        made = Authority.open(tmp_path / "a", [NAME], time.time())
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(made, tmp_path, "other.example.org")

    def test_grpc_accepts_it(self, tmp_path: Path) -> None:
        made = Authority.open(tmp_path, [NAME], time.time())
        server = grpc.server(futures.ThreadPoolExecutor(1))
        credentials = grpc.ssl_server_credentials([(made.key_pem, made.certificate_pem)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            trusted = grpc.ssl_channel_credentials((tmp_path / "ca.crt").read_bytes())
            with grpc.secure_channel(f"localhost:{port}", trusted) as channel:
                grpc.channel_ready_future(channel).result(timeout=60)
        finally:
            server.stop(None).wait()

    def test_a_start_soon_after_changes_nothing(self, tmp_path: Path) -> None:
        made = Authority.open(tmp_path, [NAME], NOW)
        assert Authority.open(tmp_path, [NAME], NOW + SERVER_LIFE - RENEW) == made

    def test_the_certificate_is_renewed_in_time(self, tmp_path: Path) -> None:
        made = Authority.open(tmp_path, [NAME], NOW)
        later = Authority.open(tmp_path, [NAME], NOW + SERVER_LIFE - RENEW + 1)
        assert later.authority_der == made.authority_der
        assert later.certificate_pem != made.certificate_pem
        assert later.key_pem != made.key_pem

    def test_other_names_get_another_certificate(self, tmp_path: Path) -> None:
        made = Authority.open(tmp_path, [NAME], NOW)
        other = Authority.open(tmp_path, [NAME, "fed2.example.org"], NOW)
        assert names(other) == names(made) | {"fed2.example.org"}
        assert other.authority_der == made.authority_der

    def test_no_name_is_localhost(self, tmp_path: Path) -> None:
        assert Authority.open(tmp_path, [], NOW).names == ("localhost",)

    def test_a_damaged_certificate_is_made_anew_and_a_damaged_authority_is_not(self, tmp_path: Path) -> None:
        made = Authority.open(tmp_path, [NAME], NOW)
        (tmp_path / "server.pem").write_text("nonsense")
        (tmp_path / "ca.crt").write_text("nonsense")
        assert Authority.open(tmp_path, [NAME], NOW).authority_der == made.authority_der
        assert b"BEGIN CERTIFICATE" in (tmp_path / "ca.crt").read_bytes()
        (tmp_path / "authority.pem").write_text("nonsense")
        with pytest.raises(CorruptFile, match=r"authority\.pem cannot be read"):
            Authority.open(tmp_path, [NAME], NOW)

    def test_what_a_crash_left_does_not_matter(self, tmp_path: Path) -> None:
        (tmp_path / "authority.pem.tmp").write_text("half")
        (tmp_path / "server.pem.tmp").write_text("half")
        Authority.open(tmp_path, [NAME], NOW)
        assert {file.name for file in tmp_path.iterdir()} == {"authority.pem", "server.pem", "ca.crt"}

    def test_the_end_of_the_authority_is_said_beforehand(self, tmp_path: Path) -> None:
        end = Authority.open(tmp_path, [NAME], NOW).expires
        last = Authority.open(tmp_path, [NAME], end - 10 * DAY)
        assert last.warning(end - 366 * DAY) == ""
        assert "in 200 days; plan" in last.warning(end - 200 * DAY)
        assert "in 10 days; after that no node can connect" in last.warning(end - 10 * DAY)
        assert "in 1 day; after that" in last.warning(end - DAY)
        assert "authority expired on 20" in last.warning(end + DAY)
        assert leaf(last).not_valid_after_utc.timestamp() == end
        assert Authority.open(tmp_path, [NAME], end - 10 * DAY) == last
        with pytest.raises(UsageError, match="expired on"):
            Authority.open(tmp_path, [NAME], end + 1)

    def test_a_clock_that_is_before_the_authority(self, tmp_path: Path) -> None:
        Authority.open(tmp_path, [NAME], NOW)
        Authority.open(tmp_path, [NAME], NOW - 0.9 * DAY)
        with pytest.raises(UsageError, match="the clock of this machine says"):
            Authority.open(tmp_path, [NAME], NOW - 2 * DAY)

    def test_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="file"):
            Authority.open(tmp_path / "file", [NAME], NOW)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Fed.Example.org.", NAME),
        (" localhost ", "localhost"),
        ("[::1]", "::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("my_host", "my_host"),
    ],
)
def test_a_name(given: str, name: str) -> None:
    assert check_name(given) == name


@pytest.mark.parametrize(
    "given", ["", ".", "a..b", "https://a", "a:8443", "a b", "-a", "a-", "x" * 64, "é" * 300, "*.a.org", "a/b"]
)
def test_what_is_no_name(given: str) -> None:
    with pytest.raises(UsageError, match="is no name of a server"):
        check_name(given)


class Brought:
    """Certificates that somebody else has made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self.sign("Root", self.root_key, "Root", self.root_key, authority=True)

    def sign(  # noqa: PLR0917  # as the fields stand in a certificate
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        hosts: Sequence[str] = (),
        begin: float = NOW - DAY,
        end: float = NOW + 60 * DAY,
        *,
        authority: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime.fromtimestamp(begin, datetime.UTC))
            .not_valid_after(datetime.datetime.fromtimestamp(end, datetime.UTC))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(h) for h in hosts]), False)
        return builder.sign(issuer_key, hashes.SHA256())

    def files(
        self,
        chain: Sequence[x509.Certificate],
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
        password: bytes = b"",
    ) -> tuple[Path, Path]:
        certificate, private = self.directory / "cert.pem", self.directory / "key.pem"
        certificate.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain))
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        private.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return certificate, private


class TestBrought:
    """`Authority.brought`: certificates that the owner brings."""

    @pytest.fixture
    def made(self, tmp_path: Path) -> Brought:
        return Brought(tmp_path)

    @pytest.fixture
    def key(self) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(ec.SECP256R1())

    def test_with_its_own_authority(self, made: Brought, key: ec.EllipticCurvePrivateKey) -> None:
        chain = [made.sign("S", key, "Root", made.root_key, [NAME]), made.root]
        found = Authority.brought(*made.files(chain, key), [NAME], NOW)
        assert found.authority_der == made.root.public_bytes(serialization.Encoding.DER)
        assert found.certificate_pem.count(b"BEGIN CERTIFICATE") == 2
        assert found.names == (NAME,)
        assert Authority.brought(*made.files(chain, key), [], NOW).names == (NAME,)

    def test_of_a_public_authority(self, made: Brought, key: ec.EllipticCurvePrivateKey) -> None:
        files = made.files([made.sign("S", key, "Root", made.root_key, ["*.example.org"])], key)
        found = Authority.brought(*files, [NAME], NOW)
        assert found.authority_der == b""
        assert found.expires == NOW + 60 * DAY
        assert found.warning(NOW) == ""
        assert found.warning(NOW + 50 * DAY) == f"the certificate {files[0]} expires in 10 days: bring a new one"
        assert found.warning(NOW + 61 * DAY) == f"the certificate {files[0]} has expired: bring a new one"

    def test_rsa_is_good(self, made: Brought) -> None:
        key = rsa.generate_private_key(65537, 2048)
        chain = [made.sign("S", key, "Root", made.root_key, [NAME])]
        assert Authority.brought(*made.files(chain, key), [NAME], NOW).names == (NAME,)

    @pytest.mark.parametrize(
        ("now", "name", "message"),
        [
            (NOW, "other.org", f"it is for {NAME}, not for other.org"),
            (NOW + 61 * DAY, NAME, "it expired on"),
            (NOW - 2 * DAY, NAME, "it is valid from"),
        ],
    )
    def test_a_certificate_that_does_not_fit(
        self, made: Brought, key: ec.EllipticCurvePrivateKey, now: float, name: str, message: str
    ) -> None:
        files = made.files([made.sign("S", key, "Root", made.root_key, [NAME])], key)
        with pytest.raises(UsageError, match=message):
            Authority.brought(*files, [name], now)

    def test_a_key_of_another(self, made: Brought, key: ec.EllipticCurvePrivateKey) -> None:
        with pytest.raises(UsageError, match="does not belong to the certificate"):
            Authority.brought(*made.files([made.sign("S", key, "Root", made.root_key, [NAME])], made.root_key), [], NOW)

    def test_a_chain_in_disorder(self, made: Brought, key: ec.EllipticCurvePrivateKey) -> None:
        stranger = made.sign("Other", key, "Other", key, authority=True)
        with pytest.raises(UsageError, match="CN=S was not signed by CN=Other, which stands after it"):
            Authority.brought(
                *made.files([made.sign("S", key, "Root", made.root_key, [NAME]), stranger], key), [NAME], NOW
            )

    def test_a_key_that_grpc_refuses(self, made: Brought) -> None:
        key = ed25519.Ed25519PrivateKey.generate()
        with pytest.raises(UsageError, match="which gRPC refuses"):
            Authority.brought(*made.files([made.sign("S", key, "Root", made.root_key, [NAME])], key), [NAME], NOW)

    def test_files_that_cannot_be_read(self, made: Brought, key: ec.EllipticCurvePrivateKey, tmp_path: Path) -> None:
        certificate, private = made.files([made.sign("S", key, "Root", made.root_key, [NAME])], key, b"password")
        with pytest.raises(UsageError, match=r"key\.pem holds no private key") as caught:
            Authority.brought(certificate, private, [NAME], NOW)
        assert "not encrypted" in caught.value.advice
        with pytest.raises(UsageError, match=r"key\.pem holds no certificate"):
            Authority.brought(private, private, [NAME], NOW)
        with pytest.raises(UsageError, match=r"none\.pem holds no certificate"):
            Authority.brought(tmp_path / "none.pem", private, [NAME], NOW)


class TestProblem:
    """`problem`: what the doctor says of a certificate."""

    def test_nothing_is_wrong(self, tmp_path: Path) -> None:
        made = Authority.open(tmp_path, [NAME], NOW)
        der = leaf(made).public_bytes(serialization.Encoding.DER)
        for certificate in (made.certificate_pem, der):
            assert problem(certificate, NAME, NOW, authority=made.authority_der) == ""
            assert problem(certificate, "127.0.0.1", NOW) == ""
            assert problem(certificate, "", NOW) == ""

    def test_what_is_wrong_is_said(self, tmp_path: Path) -> None:
        made = Authority.open(tmp_path / "a", [NAME], NOW)
        other = Authority.open(tmp_path / "b", [NAME], NOW)
        pem = made.certificate_pem
        assert "is the ticket of this server?" in problem(pem, NAME, NOW, authority=other.authority_der)
        assert "not for 10.0.0.1" in problem(pem, "10.0.0.1", NOW)
        assert "it expired on 2027-04-15" in problem(pem, NAME, NOW + 91 * DAY)
        assert "is the clock right?" in problem(pem, NAME, NOW - 2 * DAY)
        assert "cannot be read" in problem(b"nonsense", NAME, NOW)

    def test_a_star_is_one_part_of_a_name(self, tmp_path: Path) -> None:
        made, key = Brought(tmp_path), ec.generate_private_key(ec.SECP256R1())
        certificate = made.sign("S", key, "Root", made.root_key, ["*.example.org"])
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        assert problem(pem, NAME, NOW) == ""
        for host in ("example.org", "a.b.example.org", "fed.example.com", "*.example.org"):
            assert "not for" in problem(pem, host, NOW)
        bare = made.sign("S", key, "Root", made.root_key).public_bytes(serialization.Encoding.PEM)
        assert "it is for no name" in problem(bare, NAME, NOW)
