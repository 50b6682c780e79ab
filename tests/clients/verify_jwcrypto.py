"""Verifies tokens with jwcrypto against the server's key set, as its documentation shows it."""

import json
import os
import ssl
import time
import urllib.request
from importlib.metadata import version

from jwcrypto.common import JWException
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT

DAY = 24 * 3600
asked = json.loads(os.environ["ASKED"])
context = ssl.create_default_context(cafile=asked["ca_file"])
with urllib.request.urlopen(asked["url"] + "/.well-known/jwks.json", context=context) as answer:
    keys = JWKSet.from_json(answer.read().decode())


def verify(token, issuer=asked["issuer"], audience=asked["audience"], at=None):
    claims = {"iss": issuer, "aud": audience, "exp": at, "sub": None, "jti": None}
    return json.loads(JWT(jwt=token, key=keys, algs=["EdDSA"], check_claims=claims, expected_type="JWS").claims)


def refuses(what, **how):
    try:
        verify(**how)
    except (JWException, ValueError):
        return
    raise SystemExit(f"jwcrypto took {what}")


good = asked["good"]
assert verify(good)["sub"] == asked["sub"], "another subject"
refuses("another audience", token=good, audience="https://other.example.com")
refuses("another issuer", token=good, issuer="https://other.example.com")
refuses("a token that ends too early", token=good, at=int(time.time()) + 2 * DAY)
for what, token in asked["bad"].items():
    refuses(what, token=token)
print(f"jwcrypto {version('jwcrypto')}: verified 1, refused {len(asked['bad']) + 3}")
