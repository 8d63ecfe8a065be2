"""The three files that give a container its name and its way to other names: hosts, hostname and resolv.conf.

Upstream: `kubelet_pods.go` (ensureHostsFile), `network/dns`.
"""

from __future__ import annotations

from pathlib import Path

from sampan.api.errors import Object
from sampan.node import pods
from sampan.node.config import NodeConfig

MAX_SEARCHES, MAX_SERVERS = 32, 3
_SYSTEMD = "/run/systemd/resolve/resolv.conf"

_LOCAL = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hosts_file(pod: Object, ips: tuple[str, ...], domain: str, node_hosts: str = "") -> str:
    """`/etc/hosts`: the pod's own name at its addresses, or the node's file for a pod in the node's network; and the
    pod's host aliases."""
    if pods.host_network(pod):
        text = "# Kubernetes-managed hosts file (host network).\n" + node_hosts
        if text[-1] != "\n":
            text += "\n"
    else:
        name, fqdn = pods.hostname(pod)
        text = _LOCAL
        for ip in ips:
            text += f"{ip}\t{fqdn}.{domain}\t{name}\n" if fqdn else f"{ip}\t{name}\n"
    aliases = pod["spec"].get("hostAliases") or []
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        for alias in aliases:
            text += f"{alias['ip']}\t" + "\t".join(alias.get("hostnames") or ()) + "\n"
    return text


def parse_resolv_conf(text: str) -> tuple[list[str], list[str], list[str]]:
    """(name servers, search domains, options) of a resolv.conf."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = [w.rstrip(".") or "." for w in words[1:]]
        elif words[0] == "options":
            options.extend(words[1:])
    return servers, searches, options


def resolv_conf(pod: Object, config: NodeConfig, node_text: str) -> str:
    """The pod's `/etc/resolv.conf` by its dnsPolicy and dnsConfig."""
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and pods.host_network(pod):
        policy = "Default"
    servers, searches, options = parse_resolv_conf(node_text)
    # Nothing answers at a pod's own loopback; the cluster's DNS asks the machine's resolver, be it there.
    reachable = [s for s in servers if not _is_loopback(s)]
    servers = reachable or list(config.cluster_dns) or servers
    if policy == "None":
        servers, searches, options = [], [], []
    elif policy != "Default" and config.cluster_dns:
        namespace, domain = pod["metadata"]["namespace"], config.cluster_domain
        own = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]
        servers, searches, options = list(config.cluster_dns), own + searches, ["ndots:5"]
    extra = pod["spec"].get("dnsConfig") or {}
    servers = _unique(servers + (extra.get("nameservers") or []))[:MAX_SERVERS]
    searches = _unique(searches + (extra.get("searches") or []))[:MAX_SEARCHES]
    named: dict[str, str] = {o.partition(":")[0]: o for o in options}
    for option in extra.get("options") or ():
        value = option.get("value")
        named[option["name"]] = f"{option['name']}:{value}" if value else option["name"]
    text = ""
    if searches:
        text += "search " + " ".join(searches) + "\n"
    text += "".join(f"nameserver {s}\n" for s in servers)
    if named:
        text += "options " + " ".join(named.values()) + "\n"
    return text


def write_pod_files(pod: Object, config: NodeConfig, ips: tuple[str, ...]) -> None:
    """Write `etc-hosts`, `hostname` and `resolv.conf` into the pod's directory, to be mounted by each container."""
    directory = config.pod_directory(pods.uid(pod))
    node_hosts = _read("/etc/hosts") if pods.host_network(pod) else ""
    _write(directory / "etc-hosts", hosts_file(pod, ips, config.cluster_domain, node_hosts))
    name = config.name if pods.host_network(pod) else pods.hostname(pod)[0]
    _write(directory / "hostname", name + "\n")
    _write(directory / "resolv.conf", resolv_conf(pod, config, _node_resolv_conf(config)))


def _node_resolv_conf(config: NodeConfig) -> str:
    """The file of the node, or where that names systemd-resolved's stub alone, the one with the servers behind it."""
    text = _read(config.resolv_conf)
    servers, _, _ = parse_resolv_conf(text)
    return (_read(_SYSTEMD) or text) if servers and all(map(_is_loopback, servers)) else text


def _is_loopback(server: str) -> bool:
    return server.startswith("127.") or server == "::1"


def _write(path: Path, text: str) -> None:
    # In place: containers that run have this very file mounted.
    path.write_text(text)
    path.chmod(0o644)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))
