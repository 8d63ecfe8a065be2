"""OpenID discovery: the two documents by which others learn to verify our ServiceAccount tokens.

Upstream: `pkg/serviceaccount/openidmetadata.go`.
"""

from __future__ import annotations

import json

from sampan.api.errors import Object, StatusError
from sampan.apiserver.config import Config
from sampan.apiserver.tokens.keys import signing_key
from sampan.transport.types import Request, Response

JWKS_PATH = "/openid/v1/jwks"
CONFIGURATION_PATH = "/.well-known/openid-configuration"


def handle(config: Config, request: Request) -> Response | None:
    """Answer one of the two paths; None for any other path."""
    path = request.path.rstrip("/")
    if path == JWKS_PATH:
        body: Object = {"keys": [signing_key(config.service_account_key).jwk()]}
        content_type = "application/jwk-set+json"
    elif path == CONFIGURATION_PATH:
        body = {
            "issuer": config.issuer,
            "jwks_uri": f"https://{config.advertise_address}:{config.advertise_port}{JWKS_PATH}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [signing_key(config.service_account_key).algorithm],
        }
        content_type = "application/json"
    else:
        return None
    if request.method != "GET":
        raise StatusError(405, "MethodNotAllowed", f"{request.method} is not supported on {path}")
    text = json.dumps(body, separators=(",", ":")).encode()
    return Response(200, text, content_type, (("Cache-Control", "public, max-age=3600"),))
