"""The cluster's certificates: made once, renewed before they end.

One authority signs servers (API, nodes) and clients (admin, nodes, the API server towards nodes); an etcd of the
cluster's own has another, so that none of these opens it, and so have the Ingresses that ask for local certificates: a
browser may be told to trust that one. Keys are P-256 and 0600. A leaf lives a year and is made anew when less than a third of that is left, at every `up` and daily while the
cluster runs, so that one resumed after a year starts with fresh ones.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.api.front_doors import FRONT_DOORS
from sampan.cluster import ingress_nodes

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from sampan.cluster.config import ClusterConfig

CA_DAYS, LEAF_DAYS = 3650, 365
_RENEW_BELOW = datetime.timedelta(days=LEAF_DAYS / 3)
LOCAL = "local"
"""The directory below `pki/` of the authority for Ingresses."""
NODE_CLIENT = "sampan-apiserver-node-client"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One certificate to have: file stem below `pki/`, subject, names it serves under (none for a client), and the
    directory below `pki/` of the authority that signs it."""

    stem: str
    common_name: str
    organizations: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    authority: str = ""


def leaves(config: ClusterConfig) -> list[Leaf]:
    """Every certificate of a cluster."""
    api_names = (
        "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local", "127.0.0.1", "::1", config.bridge_address, config.api_service_address,
        *((config.listen,) if config.listen not in ("127.0.0.1", "0.0.0.0", "::") else ()), *config.tls_sans,
    )  # fmt: skip
    made = [
        Leaf("apiserver", "kube-apiserver", (), tuple(dict.fromkeys(api_names))),
        Leaf("admin", "kubernetes-admin", ("system:masters",)),
        Leaf("node-client", NODE_CLIENT, ("system:masters",)),
    ]
    if config.etcd_port:
        made.append(Leaf("etcd/server", "etcd", (), ("localhost", "127.0.0.1"), "etcd"))
        made.append(Leaf("etcd/client", "kube-apiserver-etcd-client", (), (), "etcd"))
    for node in config.nodes:
        user = f"system:node:{node}"
        groups = ("system:nodes", FRONT_DOORS) if ingress_nodes.on(config, node) else ("system:nodes",)
        made.append(Leaf(f"nodes/{node}/client", user, groups))
        made.append(
            Leaf(
                f"nodes/{node}/server",
                user,
                ("system:nodes",),
                (node, *config.node_addresses(node), "127.0.0.1"),
            )
        )
    return made


def ensure(config: ClusterConfig) -> list[str]:
    """Make what is missing and renew what ends soon or serves under other names; returns the stems that were made."""
    root = config.directory / "pki"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    due = [leaf for leaf in leaves(config) if _is_due(root, leaf, now)]
    made = []
    if not (root / "ca.crt").exists():
        _make_authority(root, config.name, now)
        due = leaves(config)
        made.append("ca")
    if not (root / "sa.key").exists():
        _make_signing_key(root)
        made.append("sa")
    if not (root / LOCAL / "ca.crt").exists():
        (root / LOCAL).mkdir(mode=0o700, exist_ok=True)
        _make_authority(root / LOCAL, f"{config.name}-local", now)
        made.append(f"{LOCAL}/ca")
    if config.etcd_port and not (root / "etcd" / "ca.crt").exists():
        (root / "etcd").mkdir(mode=0o700, exist_ok=True)
        _make_authority(root / "etcd", f"{config.name}-etcd", now)
        due = [leaf for leaf in leaves(config) if leaf in due or leaf.authority]
        made.append("etcd/ca")
    for directory in dict.fromkeys(leaf.authority for leaf in due):
        authority = _load_authority(root / directory)
        for leaf in due:
            if leaf.authority == directory:
                _make_leaf(root, leaf, authority, now)
                made.append(leaf.stem)
    return made


def _stamp(leaf: Leaf, until: datetime.datetime) -> str:
    """What decides whether a leaf is still right, kept beside it so that looking needs no X.509 parser (60 ms)."""
    return "\n".join(
        (until.isoformat(), leaf.common_name, ",".join(leaf.organizations), ",".join(leaf.names))
    )


def _is_due(root: Path, leaf: Leaf, now: datetime.datetime) -> bool:
    try:
        text = (root / f"{leaf.stem}.stamp").read_text()
        until = datetime.datetime.fromisoformat(text.partition("\n")[0])
        for ending in ("crt", "key"):
            (root / f"{leaf.stem}.{ending}").stat()
    except (OSError, ValueError):
        return True
    return until - now < _RENEW_BELOW or text != _stamp(leaf, until)


def _make_authority(root: Path, name: str, now: datetime.datetime) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"sampan-{name}-ca", ())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(root / "ca.key", _key_pem(key), 0o600)
    _write(root / "ca.crt", _certificate_pem(certificate), 0o644)


def _make_signing_key(root: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    _write(root / "sa.key", _key_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)


def _load_authority(root: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    certificate = x509.load_pem_x509_certificate((root / "ca.crt").read_bytes())
    return certificate, load_pem_private_key((root / "ca.key").read_bytes(), None)  # type: ignore[return-value]


def _make_leaf(
    root: Path,
    leaf: Leaf,
    authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    now: datetime.datetime,
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    ca, ca_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    until = now + datetime.timedelta(days=LEAF_DAYS)
    use = ExtendedKeyUsageOID.SERVER_AUTH if leaf.names else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(leaf.common_name, leaf.organizations))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(min(until, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)  # type: ignore[arg-type]
    )
    if leaf.names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(_general_names(leaf.names)), critical=False
        )
    path = root / leaf.stem
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(path.with_suffix(".key"), _key_pem(key), 0o600)
    _write(path.with_suffix(".crt"), _certificate_pem(builder.sign(ca_key, hashes.SHA256())), 0o644)
    _write(path.with_suffix(".stamp"), _stamp(leaf, until).encode(), 0o600)


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    out: list[x509.GeneralName] = []
    for name in names:
        try:
            out.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            out.append(x509.DNSName(name))
    return out


def _subject(common_name: str, organizations: Sequence[str]) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=not ca, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by others in between."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as f:
        os.fchmod(f.fileno(), mode)
        f.write(data)
    temporary.replace(path)
