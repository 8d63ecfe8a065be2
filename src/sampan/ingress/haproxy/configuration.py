"""HAProxy's files: the configuration, which is fixed but for numbers and addresses, and the maps.

What a request goes through is written down here once, for every listener: what cannot be trusted is taken away, the path is
normalised (RFC 3986, section 6), then host and path are looked up in the maps: the exact host, the wildcard above it, any host;
in each the exact path, then the longest prefix; then the default backends in the same order.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

from sampan.ingress.haproxy import certificates, option_rules
from sampan.ingress.haproxy.content import MAPS, Content
from sampan.ingress.haproxy.files import Files
from sampan.ingress.pattern_cost import LONGEST_TEXT
from sampan.ingress.types import Listener

MAXCONN = 8192
_NOBODY = 65534
BUCKETS = (5, 25, 100, 500, 2500, 10000)
"""Milliseconds until the head of an answer, for the histogram of latencies."""
_STORED = f"http_req_cnt,http_err_cnt,http_fail_cnt,bytes_out_cnt,gpc({len(BUCKETS)})"
_TEXT = "content-type text/plain"
_REASONS = {s.value: s.phrase for s in HTTPStatus}
_SUFFIXES = tuple(f"suffix{n}" for n in range(2, 8))
"""Variables for what is left of a host without so many labels: for the wildcards of Gateways, which stand for several."""
_FOUND = "{ var(txn.route) -m found }"

_REFUSED = (
    '{"time":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]","client":"%ci","port":%fp,'
    '"error":"%[fc_err_str,json(utf8s)]"}'
)
"""Of connections that no request came of: TLS that was not agreed on, a PROXY header that is none."""
_LOG = (
    '{"time":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]",'
    '"client":"%ci","method":"%[var(txn.method),json(utf8s)]","host":"%[var(txn.host),json(utf8s)]",'
    '"path":"%[var(txn.log_path),json(utf8s)]","protocol":"%[var(txn.version)]","status":%ST,"bytes":%B,'
    '"milliseconds":%Ta,"backend_milliseconds":%Tr,"state":"%tsc",'
    '"rule":"%[var(txn.source)]","service":"%[var(txn.service)]","pod":"%[var(txn.pod)]","endpoint":"%si:%sp",'
    '"agent":"%[var(txn.agent),json(utf8s)]"}'
)


def render(content: Content, files: Files) -> dict[Path, str]:
    """Every file by its path. Where there are TLS listeners, the node's default certificate must be there."""
    found = {files.configuration: configuration(content, files)}
    for name in MAPS:
        found[files.map(name)] = "".join(f"{key} {value}\n" for key, value in content.maps[name].items())
    for name, pages in content.pages.items():
        for status, body in pages:
            found[files.page(name, status)] = _page(status, body)
    for name, chain in content.authorities.items():
        found[files.authority(name)] = chain
    if lists := certificates.lists(content.listeners.values()):
        own = files.default_certificate.read_text()
        found.update(certificates.render(content.certificates, lists, own, files))
    return found


def _page(status: int, body: str) -> str:
    """An answer as HAProxy reads it from a file."""
    length = len(body.encode(errors="replace"))
    lines = [
        f"HTTP/1.0 {status} {_REASONS.get(status, 'Error')}",
        "Cache-Control: no-cache",
        "Content-Type: text/html; charset=utf-8",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "", body])


def configuration(content: Content, files: Files) -> str:
    lines = [*_global(files, mirrored=bool(content.mirrored)), *_defaults(), "defaults options from usual"]
    lines += [f"    {line}" for line in option_rules.lines(files, mirrored=bool(content.mirrored))]
    for listener in sorted(content.listeners.values()):
        lines += [
            f"frontend {_frontend(listener)} from usual",
            *(f"    {line}" for line in _frontend_lines(listener, files)),
        ]
    # Counts by rule and Service: bounded, and forgotten a day after the last request.
    lines += [
        "backend measures from usual",
        f"    stick-table type string len 512 size 10k expire 1d store {_STORED}",
    ]
    lines += option_rules.sections(content, files)
    if content.mirrored:
        lines += _mirrors(files)
    for name, section in content.backends.items():
        lines.append(f"backend {name} from {'options' if section.options else 'usual'}")
        lines += [f"    {line}" for line in section.lines()]
        for server, what in content.servers.get(name, {}).items():
            if (name, server) not in content.drained:
                lines.append(f"    server {server} {what}")
    return "\n".join(lines) + "\n"


def _mirrors(files: Files) -> list[str]:
    """Where copies of requests come in, from ourselves alone. Their sender keeps what comes back until it is whole: what is long, or does not
    say how long it is, is cut off."""
    short = "{ res.hdr_val(content-length) le 65536 } { res.hdr(content-length) -m found }"
    return [
        "frontend mirrors from usual",
        f"    bind unix@{files.mirror_socket} mode 600 uid {_NOBODY}",
        "    http-request set-var(txn.target) req.hdr(x-sampan-mirror)",
        # A copy may come from before a reload, when the name was another Service's.
        f'    http-request set-var(txn.called) "var(txn.target),map_str({files.map("services")})"',
        "    http-request return status 404 unless { req.hdr(x-sampan-mirror-service),strcmp(txn.called) eq 0 }",
        "    http-request del-header x-sampan-mirror -m beg",
        f"    http-response return status 204 unless {short}",
        "    use_backend %[var(txn.target)]",
    ]


def _global(files: Files, *, mirrored: bool) -> Iterator[str]:
    yield "global"
    for line in (
        "nbthread 2",
        f"maxconn {MAXCONN}",
        # What a client or a backend sends has 16 kB as ever; beside that there is room for what routes add to it.
        "tune.bufsize 20480",
        "tune.maxrewrite 4096",
        f"stats socket {files.admin_socket} mode 600 level admin expose-fd listeners",
        "stats timeout 1h",
        f"uid {_NOBODY}",
        f"gid {_NOBODY}",
        f"chroot {files.root}",
        "hard-stop-after 1h",
        "expose-experimental-directives",
        f"ca-base {files.named}",
        f"setenv SAMPAN_INGRESS {files.directory}",
        f"lua-load-per-thread {files.lua}",
        *([f"lua-load-per-thread {files.mirror_lua}"] if mirrored else ()),
    ):
        yield f"    {line}"


def _defaults() -> Iterator[str]:
    yield "defaults usual"
    # A pod whose node is lost is asked until the cluster knows of it (40 s): with "retries" and "redispatch" another pod is
    # asked after the time to connect, which leaves room for one packet to be lost.
    # Without "http-no-delay" the kernel keeps back each event of a stream for 200 ms, for more may follow.
    for line in (
        "mode http",
        "option dontlognull",
        "option http-no-delay",
        "option redispatch",
        "option idle-close-on-response",
        "retries 3",
        "retry-on conn-failure empty-response",
        "http-reuse always",
        "timeout connect 2s",
        "timeout http-request 30s",
        "timeout http-keep-alive 60s",
        "timeout client 5m",
        "timeout server 5m",
        "timeout tunnel 1h",
        "timeout client-fin 30s",
        "timeout queue 10s",
    ):
        yield f"    {line}"


def _frontend(listener: Listener) -> str:
    """A name of ours: listeners' own may hold anything."""
    return f"port-{listener.port}"


def _frontend_lines(listener: Listener, files: Files) -> Iterator[str]:
    for address in files.addresses:
        host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
        words = ["accept-proxy"] if listener.proxy_protocol else []
        words += [certificates.bind_words(listener.scope, files)] if listener.tls else []
        yield " ".join([f"bind {host}:{listener.port}", *words])
    # Not of backends: they would tell of every server that comes.
    yield "log stdout len 65535 format raw local0 info"
    yield f"log-format {_quoted(_LOG)}"
    yield f"error-log-format {_quoted(_REFUSED)}"
    yield f"http-request set-var(txn.scope) str({listener.scope})"
    yield from _distrust(listener)
    if listener.tls and not listener.hosts:
        yield from certificates.misdirected(files.map("certificates"))
    yield from _normalise()
    yield from _find(listener, files)
    yield from _send(files)


def _distrust(listener: Listener) -> Iterator[str]:
    """Refuse what could be understood in two ways; say anew what only we can know."""
    yield "http-request set-var(txn.method) method"
    yield "http-request set-var(txn.version) req.ver"
    yield "http-request set-var(txn.agent) req.hdr(user-agent)"
    yield "http-request set-var(txn.log_path) path"
    yield "http-request set-var(txn.host) req.hdr(host),host_only,lower,regsub([.]$,)"
    yield f'http-request return status 400 {_TEXT} string "bad Host header" if {{ req.hdr_cnt(host) gt 1 }}'
    yield (
        f'http-request return status 400 {_TEXT} string "bad Host header" '
        r"if { req.hdr(host) -m found } !{ req.hdr(host) -m reg '^([A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?$' }"
    )
    # Only HTTP/1.0 may go without (RFC 9112, 3.2); HTTP/2 has it under another name.
    yield (
        f'http-request return status 400 {_TEXT} string "400: no Host header\\n" '
        "if { req.ver -m str 1.1 } !{ req.hdr(host) -m found }"
    )
    # Who takes HTTP/1.0, or what is older, at its word sees no body, and a request in what is one (RFC 9112, 6.1).
    yield (
        f'http-request return status 400 {_TEXT} string "bad Transfer-Encoding" '
        "if { req.hdr(transfer-encoding) -m found } { req.ver -m beg 0. 1.0 }"
    )
    # If a backend answered it with 200, all that follows would go there unseen.
    yield f'http-request return status 405 {_TEXT} string "405: no tunnels\\n" if METH_CONNECT'
    # The same goes for HTTP/2 that begins with an upgrade. HAProxy does not speak it itself, and nobody has to get it (RFC 9110, 7.8).
    yield "http-request del-header http2-settings"
    yield "http-request del-header upgrade if { req.hdr(upgrade) -m beg -i h2 }"
    # Who named one of our headers in it had the next proxy take that away (RFC 9110, 7.6.1).
    upgrades = "{ req.hdr(upgrade) -m found } { req.hdr(connection) -m str -i upgrade }"
    yield f"http-request del-header connection unless {upgrades}"
    yield "http-request set-header Connection upgrade if { req.hdr(connection) -m found }"
    yield "http-request del-header _ -m sub"
    yield "http-request del-header x-forwarded -m beg"
    yield "http-request del-header forwarded"
    yield "http-request del-header proxy"
    yield "http-request set-header X-Forwarded-For %[src]"
    yield "http-request set-header X-Real-IP %[src]"
    yield f"http-request set-header X-Forwarded-Proto {'https' if listener.tls else 'http'}"
    yield f"http-request set-header X-Forwarded-Port {listener.public_port or (443 if listener.tls else 80)}"
    yield "http-request set-header X-Forwarded-Host %[req.hdr(host)] if { req.hdr(host) -m found }"
    yield "http-request disable-l7-retry if !{ method GET HEAD OPTIONS }"


def _normalise() -> Iterator[str]:
    # "OPTIONS *" asks a server, and "GET http://foo.com" has no path: nothing that is looked up would be found for either.
    yield "http-request set-path / if !{ path -m found }"
    # Of a path only: in a query a percent sign may well stand for itself, and nothing is decided by it.
    yield (
        f'http-request return status 400 {_TEXT} string "bad path" '
        "if { path -m reg '%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)' }"
    )
    for what in (
        "fragment-strip",
        "percent-decode-unreserved",
        "percent-to-uppercase",
        "path-strip-dot",
        "path-strip-dotdot full",
    ):
        yield f"http-request normalize-uri {what}"
    # What is left of dots is encoded with a slash, or has parameters: only a backend could see a way up in it.
    slash = r"/|\\|%2F|%5C"
    yield (
        f'http-request return status 400 {_TEXT} string "bad path" '
        rf"if {{ path -m reg '(^|{slash})[.][.]?($|{slash}|;|%3B)' }}"
    )
    yield 'http-request set-var(txn.path) "path,regsub(//+,/,g)"'


def _find(listener: Listener, files: Files) -> Iterator[str]:
    several_labels = _SUFFIXES if listener.hosts else ()
    names = ("host", "wildcard", *several_labels)
    yield 'http-request set-var(txn.wildcard) "var(txn.host),regsub(^[^.]+,*)"'
    last = "wildcard"
    for name in several_labels:
        yield f'http-request set-var(txn.{name}) "var(txn.{last}),regsub(^[*][.][^.]+[.],*.)" if {{ var(txn.{last}) -m reg ^[*][.][^.]+[.] }}'
        last = name
    yield from _keys(names)
    keys = [f"txn.{name}_key" for name in (*names, "any")]
    if listener.hosts:
        chosen = "{ var(txn.chosen) -m found }"
        for key in keys:
            yield f'http-request set-var(txn.chosen) "var({key}),map_str({files.map("scopes")})" if !{chosen}'
        yield f'http-request return status 404 {_TEXT} string "404: no listener for this host\\n" if !{chosen}'
        if listener.tls:
            yield from certificates.misdirected_among_listeners()
        yield "http-request set-var(txn.scope) var(txn.chosen)"
        yield from _keys(names)
    found = ""
    for key in keys:
        yield (
            f'http-request set-var(txn.generation) "var({key}),map_str({files.map("hosts")})"'
            + (f" if {found}" if found else "")
        )
        for sample, only in (
            (f"var({key}),concat(,txn.path),map_str({files.map('exact')})", ""),
            (
                f"var(txn.generation),concat(|,txn.path),map_reg({files.map('regex')})",
                "{ var(txn.generation) -m found }",
            ),
            (f"var({key}),concat(,txn.path,/),map_beg({files.map('prefix')})", ""),
        ):
            condition = " ".join(c for c in (found, only) if c)
            if only:
                long = f"{{ var(txn.path),length gt {LONGEST_TEXT} }}"
                why = f"the path has more than {LONGEST_TEXT} characters"
                yield f'http-request return status 414 {_TEXT} string "414: {why}\\n" if {condition} {long}'
            yield f'http-request set-var(txn.route) "{sample}"' + (f" if {condition}" if condition else "")
            found = f"!{_FOUND}"
    several = "{ var(txn.route) -m beg c }"
    yield f"http-request lua.choose if {several}"
    for key in keys:
        sample = f"var({key}),map_str({files.map('default')})"
        yield f'http-request set-var(txn.route) "{sample}" if {found}'
    yield f"http-request lua.choose_default if {several}"


def _keys(names: Sequence[str]) -> Iterator[str]:
    """What is looked up for the host of a request, in the scope that is known by now."""
    for name in names:
        given = "" if name in ("host", "wildcard") else f" if {{ var(txn.{name}) -m found }}"
        yield f"http-request set-var-fmt(txn.{name}_key) %[var(txn.scope)]|%[var(txn.{name})]{given}"
    yield "http-request set-var-fmt(txn.any_key) %[var(txn.scope)]|*"


def _send(files: Files) -> Iterator[str]:
    yield (
        f'http-request return status 404 {_TEXT} string "404: no rule for this host and path\\n" if !{_FOUND}'
    )
    yield f'http-request set-var(txn.source) "var(txn.route),map_str({files.map("sources")})"'
    yield f'http-request set-var(txn.target) "var(txn.route),map_str({files.map("targets")})"'
    yield 'http-request set-var(txn.target) "var(txn.target),lua.draw" if { var(txn.target) -m sub , }'
    # What is asked for on the way to one of several backends stands under a name of its own.
    yield 'http-request set-var(txn.route) "var(txn.target),field(2,@)" if { var(txn.target) -m sub @ }'
    yield 'http-request set-var(txn.target) "var(txn.target),field(1,@)" if { var(txn.target) -m sub @ }'
    yield (
        f'http-request return status 500 {_TEXT} string "500: the backend is refused\\n" '
        "if { var(txn.target) -m str =500 }"
    )
    yield (
        f'http-request return status 503 {_TEXT} string "503: nothing is behind this rule\\n" '
        "if !{ var(txn.target) -m beg b }"
    )
    yield f'http-request set-var(txn.service) "var(txn.target),map_str({files.map("services")})"'
    yield "http-request set-var(txn.began) date(0,ms)"
    yield "http-request set-var-fmt(txn.measured) %[var(txn.source)]|%[var(txn.service)]"
    yield "http-request track-sc0 var(txn.measured) table measures"
    yield "http-response set-var(txn.took) date(0,ms),sub(txn.began)"
    for i, most in enumerate(BUCKETS):
        yield f"http-response sc-inc-gpc({i},0) if {{ var(txn.took) -m int le {most} }}"
    yield "http-response set-var-fmt(txn.server) %[be_name]/%[srv_name]"
    yield f'http-response set-var(txn.pod) "var(txn.server),map_str({files.map("pods")})"'
    yield "use_backend %[var(txn.target)]"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
