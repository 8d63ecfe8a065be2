"""What HAProxy does for the options of routes: rules that are the same for all, and read what a route wants from maps.

They stand in a defaults section that the backends of routes with options are made from, so that others do not pay for them. A change
of an option is a change of map entries. What cannot be in a map (users with their hashes, pages for errors, authorities) has a section or file
under a name made from its content.
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.ingress.haproxy.content import Content
from sampan.ingress.haproxy.files import Files

PERIODS = (1, 60, 3600)
"""Seconds that a rate may be counted over; each has a table."""
_CLIENTS = "100k"
_PREFLIGHT = (("methods", "access-control-request-method"), ("headers", "access-control-request-headers"))
"""What a browser asks for beforehand, and the header that it asks in."""
_TEXT = "content-type text/plain"
_HOSTED = "{ var(txn.host) -m len gt 0 }"
_NAMELESS = f'http-request return status 400 {_TEXT} string "400: a Host header is needed\\n"'
_NO_ROOM = "{ var(txn.no_room) -m found }"
_LONGEST_COPY = 15_000
"""Bytes of a body that is copied, as `mirror.lua` has it."""


def lines(files: Files, *, mirrored: bool = False) -> Iterator[str]:
    """The rules, in the order in which they hold; with `mirrored` those that copy requests, too."""
    yield from _secure(files)
    yield from _cors(files)
    yield f"{_NAMELESS} if !{_HOSTED} {_has('redirect', files)} !{_has('redirect-host', files)}"
    yield f"http-request lua.redirect if {_has('redirect', files)}"
    yield from _networks(files)
    yield from _rates(files)
    yield from _users(files)
    yield from _body(files)
    yield from _change(files)
    yield from _keep(files)
    if mirrored:
        yield from _copy(files)


def sections(content: Content, files: Files) -> Iterator[str]:
    """Tables, users and pages."""
    for period in PERIODS:
        yield f"backend rate-{period} from usual"
        yield (
            f"    stick-table type binary len 20 size {_CLIENTS} expire {2 * period}s store http_req_rate({period}s)"
        )
    yield "backend verified from usual"
    yield "    stick-table type string len 64 size 10k expire 5m store gpt0"
    for name, users in content.users.items():
        yield f"userlist {name}"
        yield from (f"    user {user} password {hashed}" for user, hashed in users)
    for name, pages in content.pages.items():
        yield f"http-errors {name}"
        yield from (f"    errorfile {status} {files.page(name, status)}" for status, _ in pages)


def _setting(name: str, files: Files) -> str:
    return f"var(txn.route),concat(.{name}),map_str({files.map('settings')})"


def _has(name: str, files: Files) -> str:
    return f"{{ {_setting(name, files)} -m found }}"


def _text(name: str, files: Files) -> str:
    return f"%[{_setting(name, files)},url_dec]"


def _secure(files: Files) -> Iterator[str]:
    yield (
        "http-request redirect code 308 location https://%[var(txn.host)]%[pathq] "
        f"if !{{ ssl_fc }} {_HOSTED} {_has('https-only', files)}"
    )
    # Who names no host cannot be sent to HTTPS, and is not let in without.
    yield f"{_NAMELESS} if !{{ ssl_fc }} !{_HOSTED} {_has('https-only', files)}"
    yield (
        f'http-after-response set-header Strict-Transport-Security "max-age={_text("hsts", files)}" '
        f"if {{ ssl_fc }} {_has('hsts', files)}"
    )


def _cors(files: Files) -> Iterator[str]:
    cors, origin = "{ var(txn.cors) -m found }", "{ var(txn.allow_origin) -m found }"
    listed = f"map_str({files.map('settings')})"
    yield f'http-request set-var(txn.cors) "{_setting("cors", files)}"'
    yield f"http-request set-var(txn.origin) req.hdr(origin) if {cors}"
    yield f'http-request set-var(txn.origins) "var(txn.origin),regsub(//[^.]*[.],//*.)" if {cors}'
    for variable in ("origin", "origins"):
        yield (
            f"http-request set-var(txn.allow_origin) var(txn.origin) if {cors} "
            f"{{ var(txn.route),concat(.origin|,txn.{variable}),{listed} -m found }}"
        )
    yield f"http-request lua.origin if {cors} !{origin} {_has('origin.1', files)}"
    yield "http-request set-var(txn.allow_origin) var(txn.origin) if { var(txn.cors) -m str any }"
    yield "http-request set-var(txn.allow_origin) str(*) if { var(txn.cors) -m str * }"
    for name in ("credentials", "exposed"):
        # Until the answer comes the route may have gone.
        yield f'http-request set-var(txn.{name}) "{_setting(f"cors-{name}", files)},url_dec" if {cors}'
    asks = "METH_OPTIONS { req.hdr(access-control-request-method) -m found }"
    yield f"http-request set-var(txn.preflight) bool(1) if {cors} {asks}"
    preflight = "{ var(txn.preflight) -m found }"
    for name, asked in _PREFLIGHT:
        yield f'http-request set-var(txn.{name}) "{_setting(f"cors-{name}", files)},url_dec" if {preflight}'
        # Not every browser knows a star, and none does beside credentials: what is asked for is named.
        yield f"http-request set-var(txn.{name}) req.fhdr({asked}) if {preflight} {{ var(txn.{name}) -m str * }}"
    yield f'http-request set-var(txn.max_age) "{_setting("cors-max-age", files)}" if {preflight}'
    yield f"http-request return status 200 if {preflight}"
    set_ = "http-after-response set-header Access-Control-"
    yield f"{set_}Allow-Origin %[var(txn.allow_origin)] if {origin}"
    yield f"http-after-response add-header Vary Origin if {cors} !{{ var(txn.cors) -m str * }}"
    for header, name in (("Allow-Credentials", "credentials"), ("Expose-Headers", "exposed")):
        yield f"{set_}{header} %[var(txn.{name})] if {origin} {{ var(txn.{name}) -m found }}"
    for header, name in (("Allow-Methods", "methods"), ("Allow-Headers", "headers"), ("Max-Age", "max_age")):
        said = f"{{ var(txn.{name}) -m found }} !{{ var(txn.{name}) -m str * }}"
        yield f"{set_}{header} %[var(txn.{name})] if {origin} {preflight} {said}"


def _networks(files: Files) -> Iterator[str]:
    listed = f"map_beg({files.map('networks')})"
    yield f'http-request set-var(txn.networks) "{_setting("networks", files)}"'
    yield "http-request set-var(txn.bits) src,lua.bits if { var(txn.networks) -m found }"
    yield (
        "http-request deny deny_status 403 if { var(txn.networks) -m sub allow } "
        f"!{{ var(txn.route),concat(.allow|,txn.bits),{listed} -m found }}"
    )
    yield (
        "http-request deny deny_status 403 if { var(txn.networks) -m sub deny } "
        f"{{ var(txn.route),concat(.deny|,txn.bits),{listed} -m found }}"
    )


def _rates(files: Files) -> Iterator[str]:
    # A client of IPv6 has all addresses of its network.
    yield f"http-request set-var(txn.client) src,ipmask(32,64) if {_has('rate', files)}"
    yield (
        f"http-request set-var-fmt(txn.client) %[var(txn.client)]|%[{_setting('rate', files)}] "
        "if { var(txn.client) -m found }"
    )
    for period in PERIODS:
        most = f"{{ var(txn.most{period}) -m found }}"
        yield f'http-request set-var(txn.most{period}) "{_setting(f"rate-{period}", files)}"'
        yield f"http-request track-sc1 var(txn.client),sha1 table rate-{period} if {most}"
        yield f"http-request deny deny_status 429 if {most} {{ sc_http_req_rate(1),sub(txn.most{period}) gt 0 }}"


def _users(files: Files) -> Iterator[str]:
    asked, known = "{ var(txn.users) -m found }", "{ var(txn.known) -m bool }"
    yield f'http-request set-var(txn.users) "{_setting("users", files)}"'
    # Of two the first would be checked, and the last remembered as right: whatever that is, from whomever it comes.
    yield f"http-request deny deny_status 400 if {asked} {{ req.fhdr_cnt(authorization) gt 1 }}"
    # A good hash takes long, and everybody waits meanwhile: what was right is remembered for a while.
    yield (
        'http-request set-var(txn.credentials) "req.fhdr(authorization),concat(|,txn.users),sha2(256),hex" '
        f"if {asked}"
    )
    yield f'http-request set-var(txn.known) "var(txn.credentials),in_table(verified)" if {asked}'
    yield f"http-request lua.authenticate if {asked} !{known}"
    yield f"http-request track-sc2 var(txn.credentials) table verified if {asked} {known}"
    yield f'http-request set-var(txn.realm) "{_setting("realm", files)},url_dec" if {asked} !{known}'
    yield (
        "http-after-response set-header WWW-Authenticate "
        '\'Basic realm="%[var(txn.realm)]", charset="UTF-8"\' if { var(txn.realm) -m found }'
    )
    yield f"http-request deny deny_status 401 if {asked} !{known}"


def _body(files: Files) -> Iterator[str]:
    yield f'http-request set-var(txn.max_body) "{_setting("max-body", files)}"'
    yield (
        "http-request deny deny_status 413 if { var(txn.max_body) -m found } "
        "{ req.hdr_val(content-length),sub(txn.max_body) gt 0 }"
    )
    yield "http-after-response set-status 413 if { var(txn.too_long) -m found }"


def _copy(files: Files) -> Iterator[str]:
    """Copies, as the backend gets the request. Only what is short is waited for, and not for long."""
    asked, length = "{ var(txn.mirror) -m found }", "req.hdr_val(content-length)"
    yield f'http-request set-var(txn.mirror) "{_setting("mirror", files)}"'
    yield (
        f"http-request wait-for-body time 1s at-least {_LONGEST_COPY} "
        f"if {asked} {{ {length} gt 0 }} {{ {length} le {_LONGEST_COPY} }}"
    )
    yield f"http-request lua.mirror if {asked}"


def _change(files: Files) -> Iterator[str]:
    yield f"http-request lua.request_headers if {_has('request.1', files)}"
    yield f'http-request return status 431 {_TEXT} string "431: the headers are too long\\n" if {_NO_ROOM}'
    yield f'http-request set-header Host "{_text("host", files)}" if {_has("host", files)}'
    yield f'http-request set-path "{_text("path", files)}" if {_has("path", files)}'
    yield f'http-request set-var-fmt(txn.cut) "%[{_setting("cut", files)}]:%[var(txn.path)]" if {_has("cut", files)}'
    yield f'http-request set-path "{_text("prefix", files)}%[var(txn.cut),lua.after]" if {_has("cut", files)}'
    yield (
        'http-request set-var(txn.rewritten) "var(txn.route),concat(|,txn.path),'
        f'map_regm({files.map("rewrites")})" if {_has("pattern", files)}'
    )
    for slash, begins in (("", ""), ("/", "!")):
        yield (
            f"http-request set-path {slash}%[var(txn.rewritten)] if {{ var(txn.rewritten) -m found }} "
            f"{begins}{{ var(txn.rewritten) -m beg / }}"
        )
    for what, name in (("server", "timeout-response"), ("tunnel", "timeout-tunnel")):
        yield f'http-request set-var(txn.{what}_timeout) "{_setting(name, files)}"'
        yield (
            f"http-request set-timeout {what} var(txn.{what}_timeout) if {{ var(txn.{what}_timeout) -m found }}"
        )
    yield f"http-request lua.keep_response_headers if {_has('response.1', files)}"
    yield "http-response lua.response_headers if { var(txn.response_changes) -m found }"
    yield f'http-response return status 502 {_TEXT} string "502: the headers are too long\\n" if {_NO_ROOM}'


def _keep(files: Files) -> Iterator[str]:
    cookies = f"map_str({files.map('cookies')})"
    named, aged = "{ var(txn.cookie_name) -m found }", "{ var(txn.cookie_age) -m found }"
    yield f'http-request set-var(txn.cookie_name) "{_setting("cookie", files)},url_dec"'
    yield f'http-request set-var(txn.cookie_age) "{_setting("cookie-max-age", files)}" if {named}'
    yield f"http-request lua.cookie if {named}"
    yield (
        f'http-request set-var(txn.keep) "be_name,concat(/,txn.cookie),{cookies}" '
        "if { var(txn.cookie) -m found }"
    )
    yield f"http-response set-var-fmt(txn.holder) %[be_name]/%[srv_name] if {named}"
    yield f'http-response set-var(txn.given) "var(txn.holder),{cookies}" if {{ var(txn.holder) -m found }}'
    new = "{ var(txn.given) -m found } !{ var(txn.given),strcmp(txn.cookie) eq 0 }"
    given = '"%[var(txn.cookie_name)]=%[var(txn.given)]; Path=/; HttpOnly'
    yield f'http-response add-header Set-Cookie {given}" if {new} !{aged}'
    yield f'http-response add-header Set-Cookie {given}; Max-Age=%[var(txn.cookie_age)]" if {new} {aged}'
