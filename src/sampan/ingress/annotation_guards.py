"""Annotations that are there for somebody's safety. An Ingress with one that cannot be had stays closed: served without it, it would
be open to those whom it was to keep out, or its requests to those who must not see them.
"""

from __future__ import annotations

from sampan.ingress import annotation_values as values

PREFIX = "sampan.io/"
NGINX = "nginx.ingress.kubernetes.io/"

GUARDS = {
    f"{PREFIX}allow": "allow",
    f"{PREFIX}backend-ca-secret": "authority",
    f"{PREFIX}backend-protocol": "protocol",
    f"{PREFIX}backend-server-name": "server name",
    f"{PREFIX}basic-auth-secret": "users",
    f"{PREFIX}deny": "deny",
    f"{PREFIX}https-redirect": "https",
    f"{PREFIX}max-body": "body",
    f"{PREFIX}rate-limit": "rate",
    f"{NGINX}allowlist-source-range": "allow",
    f"{NGINX}auth-secret": "users",
    f"{NGINX}auth-type": "users",
    f"{NGINX}backend-protocol": "protocol",
    f"{NGINX}denylist-source-range": "deny",
    f"{NGINX}force-ssl-redirect": "https",
    f"{NGINX}limit-rpm": "rate",
    f"{NGINX}limit-rps": "rate",
    f"{NGINX}proxy-body-size": "body",
    f"{NGINX}proxy-ssl-verify": "authority",
    f"{NGINX}ssl-redirect": "https",
    f"{NGINX}whitelist-source-range": "allow",
}
"""What each of those that can be had guards: one of ours that is right makes good for those of nginx with the same."""

_REFUSED = frozenset(
    f"{NGINX}{name}"
    for name in (
        "auth-signin",
        "auth-tls-pass-certificate-to-upstream",
        "auth-tls-secret",
        "auth-tls-verify-client",
        "auth-tls-verify-depth",
        "auth-url",
        "enable-modsecurity",
        "enable-owasp-core-rules",
        "modsecurity-transaction-id",
        "proxy-ssl-name",
        "proxy-ssl-secret",
        "satisfy",
    )
)
"""Guards that cannot be had at all."""

_ASKS_NOTHING = {
    f"{NGINX}auth-tls-verify-client": "off",
    f"{NGINX}enable-modsecurity": "false",
    f"{NGINX}enable-owasp-core-rules": "false",
    f"{NGINX}satisfy": "all",
}
"""Values by which such a guard is not asked for: what they say is so here."""

_OTHERS = frozenset(
    f"{NGINX}{name}"
    for name in (
        "affinity-canary-behavior",
        "affinity-mode",
        "app-root",
        "auth-always-set-cookie",
        "auth-cache-duration",
        "auth-cache-key",
        "auth-keepalive",
        "auth-keepalive-requests",
        "auth-keepalive-share-vars",
        "auth-keepalive-timeout",
        "auth-method",
        "auth-proxy-set-headers",
        "auth-realm",
        "auth-request-redirect",
        "auth-response-headers",
        "auth-secret-type",
        "auth-signin-redirect-param",
        "auth-snippet",
        "auth-tls-error-page",
        "auth-tls-match-cn",
        "client-body-buffer-size",
        "connection-proxy-header",
        "custom-headers",
        "custom-http-errors",
        "default-backend",
        "disable-proxy-intercept-errors",
        "enable-access-log",
        "enable-global-auth",
        "enable-opentelemetry",
        "enable-rewrite-log",
        "from-to-www-redirect",
        "global-rate-limit",
        "http2-push-preload",
        "limit-allowlist",
        "limit-burst-multiplier",
        "limit-connections",
        "limit-rate",
        "limit-rate-after",
        "limit-whitelist",
        "mirror-host",
        "mirror-request-body",
        "mirror-target",
        "preserve-trailing-slash",
        "proxy-buffer-size",
        "proxy-buffering",
        "proxy-buffers-number",
        "proxy-busy-buffers-size",
        "proxy-cookie-domain",
        "proxy-cookie-path",
        "proxy-http-version",
        "proxy-max-temp-file-size",
        "proxy-next-upstream",
        "proxy-next-upstream-timeout",
        "proxy-next-upstream-tries",
        "proxy-redirect-from",
        "proxy-redirect-to",
        "proxy-request-buffering",
        "proxy-send-timeout",
        "proxy-ssl-ciphers",
        "proxy-ssl-protocols",
        "proxy-ssl-server-name",
        "proxy-ssl-verify-depth",
        "relative-redirects",
        "server-alias",
        "service-upstream",
        "session-cookie-change-on-failure",
        "session-cookie-conditional-samesite-none",
        "session-cookie-domain",
        "session-cookie-expires",
        "session-cookie-path",
        "session-cookie-samesite",
        "session-cookie-secure",
        "ssl-ciphers",
        "ssl-passthrough",
        "ssl-prefer-server-ciphers",
        "stream-snippet",
        "upstream-hash-by",
        "x-forwarded-prefix",
    )
)
"""What else ingress-nginx documents: whoever writes one of these means it, and not one that guards."""


def asks_nothing(key: str, value: str) -> bool:
    """Whether an annotation that is not supported says what is so without it."""
    return _ASKS_NOTHING.get(key) == value.strip().lower()


def refused(key: str, meant: str) -> bool:
    """Whether an annotation that is not supported was to guard: `meant` is the one that can be had and is nearest to it, or ""."""
    return key in _REFUSED or (key not in _OTHERS and (meant in GUARDS or bool(_near_refused(key))))


def _near_refused(key: str) -> bool:
    if not key.startswith(NGINX):
        return False
    near = values.near(key.removeprefix(NGINX), (k.removeprefix(NGINX) for k in _REFUSED | _OTHERS))
    return f"{NGINX}{near}" in _REFUSED
