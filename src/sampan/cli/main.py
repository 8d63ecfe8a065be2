"""The `sampan` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sampan.cli import image, node, parts, token
from sampan.cli import ingress as ingress_commands
from sampan.cli import store as store_commands

app = typer.Typer(
    name="sampan",
    help="A real Kubernetes cluster on this machine, in about a second.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(image.app, name="image")
app.add_typer(node.app, name="node")
app.add_typer(ingress_commands.app, name="ingress")
app.add_typer(store_commands.app, name="store")
app.add_typer(token.app, name="token")
app.add_typer(parts.app)

Name = Annotated[str, typer.Option("--name", help="Which cluster.")]


def main() -> None:
    """Run the command line: one clear line and exit code 1 for what goes wrong."""
    from sampan.cluster.errors import ClusterError
    from sampan.node.images.types import ImageError
    from sampan.store.types import StoreError

    try:
        app()
    except (ClusterError, ImageError, StoreError) as e:
        print(f"sampan: {e}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def up(
    name: Name = "default",
    nodes: Annotated[int | None, typer.Option(help="How many nodes, 1 to 20.")] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Where objects are kept: sqlite, etcd (one of its own) or etcd://HOST:PORT,..."),
    ] = None,
    etcd_cafile: Annotated[str, typer.Option(help="Who signs the certificates of an etcd that stands.")] = "",
    etcd_certfile: Annotated[str, typer.Option(help="The certificate to show to it.")] = "",
    etcd_keyfile: Annotated[str, typer.Option(help="Its key.")] = "",
    apiservers: Annotated[
        int | None, typer.Option(help="How many control planes, 1 to 3; several need an etcd.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Address for the API besides the bridge; loopback unless given.")
    ] = None,
    tls_san: Annotated[
        list[str] | None, typer.Option(help="A further name or address the API is reached by.")
    ] = None,
    publish: Annotated[
        list[str] | None, typer.Option(help="Offer a NodePort on this host: [ADDR:]PORT:NODEPORT.")
    ] = None,
    nodeport_addresses: Annotated[
        list[str] | None,
        typer.Option(help="Where nodes open NodePorts: primary (the node's address) or ranges: CIDR,..."),
    ] = None,
    ingress: Annotated[
        bool, typer.Option("--ingress/--no-ingress", help="Whether Ingresses have a proxy (HAProxy).")
    ] = True,
    ingress_nodes: Annotated[
        str | None, typer.Option(help="Nodes that Ingresses are reached at: all, or NAME,...")
    ] = None,
    ingress_proxy_protocol: Annotated[
        bool | None,
        typer.Option(
            help="Whether connections to Ingresses begin with a PROXY header, from a load balancer before them."
        ),
    ] = None,
    lb_pool: Annotated[
        list[str] | None,
        typer.Option(
            help="Addresses for load balancers: CIDR, FIRST-LAST or none; some of the bridge's unless given."
        ),
    ] = None,
    api_port: Annotated[
        int, typer.Option(help="Port of the API; the next free one from 6443 unless given.")
    ] = 0,
    ip_families: Annotated[
        str, typer.Option(help="IPv4, or IPv4,IPv6 for dual stack; IPv4 alone unless given.")
    ] = "",
    service_cidr: Annotated[str, typer.Option(help="Range of Service addresses: V4, or V4,V6.")] = "",
    pod_cidr: Annotated[str, typer.Option(help="Range of pod addresses: V4, or V4,V6.")] = "",
    node_subnet: Annotated[str, typer.Option(help="Subnet of the nodes' bridge: V4, or V4,V6.")] = "",
    authentication_config: Annotated[
        str | None, typer.Option(help="AuthenticationConfiguration file: OpenID issuers to believe.")
    ] = None,
    token_auth_file: Annotated[
        str | None, typer.Option(help='File of bearer tokens: token,user,uid,"group,group".')
    ] = None,
    encryption_provider_config: Annotated[
        str | None, typer.Option(help="EncryptionConfiguration file: what is sealed at rest.")
    ] = None,
    audit_policy_file: Annotated[
        str | None, typer.Option(help="audit.k8s.io Policy file: what is audited.")
    ] = None,
    audit_log_path: Annotated[
        str | None, typer.Option(help="Where audit events go, if not to audit.log among the cluster's logs.")
    ] = None,
    enable_admission_plugins: Annotated[
        list[str] | None, typer.Option(help="Admission plugins to run besides those on by default: NAME,...")
    ] = None,
    disable_admission_plugins: Annotated[
        list[str] | None, typer.Option(help="Admission plugins not to run though on by default: NAME,...")
    ] = None,
    node_monitor_grace_period: Annotated[
        str | None, typer.Option(help="How long a node may be silent (50s by default).")
    ] = None,
    default_not_ready_toleration_seconds: Annotated[
        int | None, typer.Option(help="How long pods bear a node that is not ready (300 by default).")
    ] = None,
    default_unreachable_toleration_seconds: Annotated[
        int | None, typer.Option(help="How long pods bear a node out of reach (300 by default).")
    ] = None,
    runtime_config: Annotated[
        list[str] | None, typer.Option(help="Old API versions to leave out: extensions/v1beta1=false,...")
    ] = None,
    logging_format: Annotated[
        str | None, typer.Option(help="What the cluster's logs are: text or json.")
    ] = None,
) -> None:
    """Start a cluster or resume it; returns when it is ready."""
    import time

    from sampan.cluster.bringup import Bringup
    from sampan.cluster.wishes import Wishes

    started = time.monotonic()
    wishes = Wishes(
        name=name,
        nodes=nodes,
        store=store,
        etcd_cafile=etcd_cafile,
        etcd_certfile=etcd_certfile,
        etcd_keyfile=etcd_keyfile,
        apiservers=apiservers,
        api_port=api_port,
        ip_families=ip_families,
        service_cidr=service_cidr,
        pod_cidr=pod_cidr,
        node_subnet=node_subnet,
        listen=listen,
        tls_sans=tls_san or (),
        publish=publish or (),
        nodeport_addresses=nodeport_addresses,
        ingress=ingress,
        ingress_nodes=ingress_nodes,
        ingress_proxy_protocol=ingress_proxy_protocol,
        lb_pool=lb_pool,
        authentication_config=authentication_config,
        token_auth_file=token_auth_file,
        encryption_provider_config=encryption_provider_config,
        audit_policy_file=audit_policy_file,
        audit_log_path=audit_log_path,
        enable_admission_plugins=enable_admission_plugins,
        disable_admission_plugins=disable_admission_plugins,
        runtime_config=runtime_config,
        node_monitor_grace_period=node_monitor_grace_period,
        default_not_ready_toleration_seconds=default_not_ready_toleration_seconds,
        default_unreachable_toleration_seconds=default_unreachable_toleration_seconds,
        logging_format=logging_format,
    )
    config = Bringup(wishes, say=lambda text: print(text, flush=True)).run()
    print(f"cluster {config.name} is ready at {config.server} ({time.monotonic() - started:.1f} s)")


@app.command()
def status(name: Name = "default") -> None:
    """Say what runs; exit code 1 if the cluster is not ready."""
    from sampan.cluster import config as configuration
    from sampan.cluster import link

    config = configuration.existing(name)
    try:
        answer = link.ask(config.run_directory, "status")
    except link.NotRunning:
        print(f"cluster {name}: stopped")
        raise typer.Exit(1) from None
    print(f"cluster {name}: {'ready' if answer['ready'] else 'not ready'}, API at {config.server}")
    for part in answer["parts"]:
        state = f"pid {part['pid']}" if part["pid"] else "not running"
        more = f", restarted {part['restarts']} times" if part["restarts"] else ""
        problem = f": {part['problem']}" if part["problem"] and not part["ready"] else ""
        print(f"  {part['name']}: {state}{more}{problem}")
    raise typer.Exit(0 if answer["ready"] else 1)


@app.command()
def stop(name: Name = "default") -> None:
    """Stop a cluster; `up` resumes it with all its data."""
    from sampan.cluster import config as configuration
    from sampan.cluster import teardown

    with configuration.locked():
        config = configuration.existing(name)
        teardown.stop(config)
    print(f"cluster {name} is stopped; `sampan up{_flag(name)}` resumes it")


@app.command()
def delete(name: Name = "default") -> None:
    """Remove every trace of a cluster."""
    from sampan.cluster import teardown

    kept = _kept_elsewhere(name)
    teardown.delete_named(name)
    print(f"cluster {name} is deleted{kept}")


@app.command()
def kubeconfig(name: Name = "default") -> None:
    """Print the cluster's kubeconfig."""
    from sampan.cluster import config as configuration
    from sampan.cluster import kubeconfig as file

    print(file.text(configuration.existing(name)), end="")


@app.command()
def ca(name: Name = "default") -> None:
    """Print the file of the authority that signs local certificates: `curl --cacert $(sampan ca) https://...`."""
    from sampan.cluster import config as configuration
    from sampan.cluster import pki

    print(configuration.existing(name).directory / "pki" / pki.LOCAL / "ca.crt")


def _kept_elsewhere(name: str) -> str:
    """What a deletion leaves to whoever it belongs to."""
    from sampan.cluster import config as configuration
    from sampan.cluster.errors import ClusterError

    try:
        config = configuration.load(name)
    except ClusterError:
        return ""
    if config is None or not config.store.startswith("etcd://"):
        return ""
    return f"; its objects stay in {config.store}"


def _flag(name: str) -> str:
    return "" if name == "default" else f" --name {name}"
