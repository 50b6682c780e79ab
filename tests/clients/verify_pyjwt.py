"""Verifies tokens with PyJWT against the server's key set, as its documentation shows it."""

import json
import os
import ssl

import jwt

DAY = 24 * 3600
asked = json.loads(os.environ["ASKED"])
context = ssl.create_default_context(cafile=asked["ca_file"])
keys = jwt.PyJWKClient(asked["url"] + "/.well-known/jwks.json", ssl_context=context)


def verify(token, issuer=asked["issuer"], audience=asked["audience"], leeway=0):
    key = keys.get_signing_key_from_jwt(token)
    options = {"require": ["iss", "sub", "aud", "iat", "exp", "jti"], "verify_iat": leeway == 0}
    return jwt.decode(token, key, algorithms=["EdDSA"], issuer=issuer, audience=audience, leeway=leeway, options=options)


def refuses(what, error, **how):
    try:
        verify(**how)
    except error:
        return
    raise SystemExit(f"PyJWT took {what}")


good = asked["good"]
assert verify(good)["sub"] == asked["sub"], "another subject"
refuses("another audience", jwt.InvalidAudienceError, token=good, audience="https://other.example.com")
refuses("another issuer", jwt.InvalidIssuerError, token=good, issuer="https://other.example.com")
refuses("an expired token", jwt.ExpiredSignatureError, token=good, leeway=-2 * DAY)
for what, token in asked["bad"].items():
    refuses(what, jwt.PyJWTError, token=token)
print(f"PyJWT {jwt.__version__}: verified 1, refused {len(asked['bad']) + 3}")
