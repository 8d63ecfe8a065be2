"""`sampan apiserver`, `sampan controllers`, `sampan scheduler`: one part, in the foreground. Flags are called as those of
kube-apiserver, kube-controller-manager and kube-scheduler that mean the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sampan.client.https import HttpsClient

app = typer.Typer()
Kubeconfig = Annotated[
    Path,
    typer.Option(help="How the API is reached, and as whom. The user must be allowed what the part does."),
]
Elect = Annotated[bool, typer.Option(help="Work only while holding the Lease; one of several that run does.")]


@app.command()
def apiserver(
    store: Annotated[str, typer.Option(help="etcd://HOST:PORT,...")],
    tls_cert_file: Annotated[Path, typer.Option(help="The certificate to show.")],
    tls_private_key_file: Annotated[Path, typer.Option(help="Its key.")],
    client_ca_file: Annotated[Path, typer.Option(help="Who signs the certificates of users.")],
    service_account_signing_key_file: Annotated[
        Path,
        typer.Option(help="The private key that signs ServiceAccounts' tokens; the same for all servers."),
    ],
    advertise_address: Annotated[str, typer.Option(help="Where pods reach the API.")],
    etcd_cafile: Annotated[str, typer.Option(help="Who signs the certificates of the etcd.")] = "",
    etcd_certfile: Annotated[str, typer.Option(help="The certificate to show to it.")] = "",
    etcd_keyfile: Annotated[str, typer.Option(help="Its key.")] = "",
    bind_address: Annotated[str, typer.Option(help="Where to listen.")] = "0.0.0.0",
    secure_port: Annotated[int, typer.Option(help="The port to listen at.")] = 6443,
    permit_port_sharing: Annotated[
        bool, typer.Option(help="Let other servers of this user listen there too.")
    ] = False,
    service_cluster_ip_range: Annotated[
        str, typer.Option(help="Range of Service addresses; two with a comma for dual stack.")
    ] = "10.96.0.0/16",
    kubelet_client_certificate: Annotated[
        Path | None, typer.Option(help="What to show to nodes (logs, exec, ...).")
    ] = None,
    kubelet_client_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    authentication_config: Annotated[
        Path | None, typer.Option(help="An AuthenticationConfiguration.")
    ] = None,
    token_auth_file: Annotated[Path | None, typer.Option(help="A file of bearer tokens.")] = None,
    encryption_provider_config: Annotated[
        Path | None, typer.Option(help="An EncryptionConfiguration.")
    ] = None,
    audit_policy_file: Annotated[Path | None, typer.Option(help="A Policy of audit.k8s.io.")] = None,
    audit_log_path: Annotated[Path | None, typer.Option(help="Where audit events go.")] = None,
) -> None:
    """Serve the API from an etcd, in the foreground."""
    from sampan.apiserver.config import Config
    from sampan.cluster import alone

    alone.check_address("--advertise-address", advertise_address)
    config = Config(
        service_cidrs=tuple(service_cluster_ip_range.split(",")),
        service_account_key=alone.read(
            "--service-account-signing-key-file", service_account_signing_key_file
        ),
        cluster_ca=alone.read("--client-ca-file", client_ca_file),
        advertise_address=advertise_address,
        advertise_port=secure_port,
        authentication_config=authentication_config,
        token_auth_file=token_auth_file,
        encryption_config=encryption_provider_config,
        audit_policy_file=audit_policy_file,
        audit_log_path=audit_log_path,
        node_client_certificate=kubelet_client_certificate,
        node_client_key=kubelet_client_key,
    )
    for flag, file in (("tls-cert-file", tls_cert_file), ("tls-private-key-file", tls_private_key_file)):
        alone.read(f"--{flag}", file)
    wanted = alone.ApiServer(
        config=config,
        store=store,
        etcd_cafile=etcd_cafile,
        etcd_certfile=etcd_certfile,
        etcd_keyfile=etcd_keyfile,
        bind_address=bind_address,
        port=secure_port,
        share_port=permit_port_sharing,
        certificate=tls_cert_file,
        key=tls_private_key_file,
        client_ca=client_ca_file,
    )
    alone.run(lambda: alone.serve_api(wanted))


@app.command()
def controllers(
    kubeconfig: Kubeconfig,
    root_ca_file: Annotated[
        Path, typer.Option(help="Who signs the API's certificate; published in every namespace.")
    ],
    service_account_private_key_file: Annotated[
        Path | None, typer.Option(help="Signs the tokens that are kept in Secrets.")
    ] = None,
    cluster_signing_cert_file: Annotated[
        Path | None, typer.Option(help="The authority for CertificateSigningRequests.")
    ] = None,
    cluster_signing_key_file: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    allocate_node_cidrs: Annotated[
        bool, typer.Option(help="Give Nodes without one a range for their pods.")
    ] = False,
    cluster_cidr: Annotated[
        str, typer.Option(help="Where these are taken from; for two families with a comma.")
    ] = "",
    leader_elect: Elect = True,
) -> None:
    """Run the controllers, in the foreground."""
    from sampan.cluster import alone

    key_file = service_account_private_key_file
    key = alone.read("--service-account-private-key-file", key_file) if key_file is not None else None
    root_ca = alone.read("--root-ca-file", root_ca_file)
    ranges = alone.node_ranges(allocate_node_cidrs, cluster_cidr)
    authority = None
    if cluster_signing_cert_file is not None and cluster_signing_key_file is not None:
        authority = cluster_signing_cert_file, cluster_signing_key_file
    alone.run(
        lambda: alone.control(
            _client(kubeconfig, "kube-controller-manager"),
            root_ca=root_ca,
            signing_key=key,
            authority=authority,
            node_ranges=ranges,
            elect=leader_elect,
        )
    )


@app.command()
def scheduler(kubeconfig: Kubeconfig, leader_elect: Elect = True) -> None:
    """Run the scheduler, in the foreground."""
    from sampan.cluster import alone

    alone.run(lambda: alone.schedule(_client(kubeconfig, "kube-scheduler"), elect=leader_elect))


def _client(kubeconfig: Path, name: str) -> HttpsClient:
    from sampan.client.https import HttpsClient
    from sampan.client.kubeconfig import KubeconfigError
    from sampan.cluster.errors import ClusterError

    try:
        return HttpsClient.from_kubeconfig(kubeconfig, user_agent=f"{name}/sampan")
    except KubeconfigError as e:
        raise ClusterError(str(e)) from e
