"""Sixty kinds of bad tokens, made of a good one without the key that signed it."""

import base64
import hashlib
import hmac
import json
import random


def b64(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else data.encode()).rstrip(b"=").decode()


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def plain(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def bad_tokens(good, public, issuer, issuers_kid):
    """By name, the `authorization` header of a number: of what might be remembered another one for each. `public` is
    identity's key of the good token, `issuer` one that the product trusts, `issuers_kid` of a key that it lists."""
    head, body, signature = good.split(".")
    header, claims = plain(head), plain(body)
    noise = random.Random(1)

    def bearer(make):
        return lambda number: f"Bearer {make(number)}"

    def signed(header_text, claims_text, end=None):
        message = f"{b64(header_text)}.{b64(claims_text)}"
        return f"{message}.{signature if end is None else end}"

    def with_header(**more):
        # Its claims change too, so that no two are alike.
        return bearer(lambda n: signed(compact({**header, **more}), compact({**claims, "jti": f"bench-{n}"})))

    def with_claims(**more):
        return bearer(lambda n: signed(compact(header), compact({**claims, "jti": f"bench-{n}", **more})))

    def without(place, name):
        parts = [{**header}, {**claims}]
        del parts[place][name]
        return bearer(lambda n: signed(compact(parts[0]), compact({**parts[1], "email": f"{n}@example.com"})))

    def text(header_text=None, claims_text=None):
        return bearer(lambda n: signed(header_text or compact(header), (claims_text or compact(claims)).replace('"sub"', f'"n":{n},"sub"')))

    def hashed(name, secret):
        def make(number):
            message = f"{b64(compact({**header, 'alg': name}))}.{b64(compact({**claims, 'jti': f'bench-{number}'}))}"
            return f"{message}.{b64(hmac.new(secret, message.encode(), name.replace('HS', 'sha')).digest())}"
        return bearer(make)

    def unsigned(name):
        return bearer(lambda n: signed(compact({**header, "alg": name}), compact({**claims, "jti": f"bench-{n}"}), ""))

    def issued(kid, **more):
        says = {"iss": issuer, "aud": "authenticated", "iat": claims["iat"], "exp": claims["exp"], **more}
        return bearer(lambda n: signed(compact({"alg": "EdDSA", "kid": kid(n)}), compact({**says, "sub": f"bench-{n}"})))

    def random_text(size):
        return bearer(lambda n: b64(noise.randbytes(size)))

    key = base64.urlsafe_b64decode(public["x"] + "==")
    return {
        # What is hardly a token.
        "no scheme": lambda n: good,
        "another scheme": lambda n: f"Basic {b64(f'{n}:x')}",
        "nothing behind the scheme": lambda n: "Bearer ",
        "a word": bearer(lambda n: f"token{n}"),
        "random bytes": random_text(400),
        "one part": bearer(lambda n: head),
        "two parts": bearer(lambda n: f"{head}.{body}"),
        "four parts": bearer(lambda n: f"{good}.{signature}"),
        "a leading dot": bearer(lambda n: f".{good}"),
        "padding": bearer(lambda n: f"{good}=="),
        "twice": bearer(lambda n: f"{good}{good}"),
        "two with a comma": bearer(lambda n: f"{good}, Bearer {good}"),
        "signature cut off": bearer(lambda n: good[:-1 - n % 80]),
        "signature gone": bearer(lambda n: f"{head}.{body}."),
        "signature of zeros": bearer(lambda n: f"{head}.{body}.{b64(bytes(64))}"),
        "signature at random": bearer(lambda n: f"{head}.{body}.{b64(noise.randbytes(64))}"),
        "header not base64": bearer(lambda n: f"!{n}!.{body}.{signature}"),
        "claims not base64": bearer(lambda n: f"{head}.!{n}!.{signature}"),
        "header no JSON": text(header_text="not JSON"),
        "header a list": text(header_text='["EdDSA"]'),
        "claims no JSON": text(claims_text="not JSON"),
        "claims a list": text(claims_text="[1, 2]"),
        "12 KB of claims": with_claims(email="a" * 9_000),
        "claims nested a thousand deep": text(claims_text=compact({**claims, "email": 7}).replace("7", "[" * 1000 + "]" * 1000, 1)),
        "the form of an API key": bearer(lambda n: f"sk-weft-{b64(noise.randbytes(32))}"),
        "an API key cut off": bearer(lambda n: f"sk-weft-{n}"),
        # Headers.
        "alg none, no signature": unsigned("none"),
        "alg None, no signature": unsigned("None"),
        "our alg, no signature": unsigned("EdDSA"),
        "alg none, a signature": with_header(alg="none"),
        "HS256 with the public key": hashed("HS256", key),
        "HS256 with the public key as text": hashed("HS256", public["x"].encode()),
        "HS512 with the public key": hashed("HS512", key),
        "HS256 with nothing": hashed("HS256", b""),
        "alg RS256": with_header(alg="RS256"),
        "alg ES256": with_header(alg="ES256"),
        "alg unheard of": with_header(alg="XX999"),
        "alg a list": with_header(alg=["EdDSA"]),
        "no kid": without(0, "kid"),
        "unknown kid": bearer(lambda n: signed(compact({**header, "kid": hashlib.sha256(str(n).encode()).hexdigest()}), compact(claims))),
        "kid as a path": with_header(kid=f"../../{header['kid']}"),
        "a critical extension": with_header(crit=["exp"]),
        "another typ": with_header(typ="at+jwt"),
        "a place of keys": with_header(jku="https://elsewhere.example/jwks.json"),
        "a key brought along": with_header(jwk=public),
        "alg twice": text(header_text=compact(header).replace("{", '{"alg":"none",', 1)),
        # Claims, under a signature that is not theirs.
        "another account": with_claims(sub="0190a1b2-0000-7000-8000-000000000000"),
        "another product": with_claims(prd="companion"),
        "an administrator": with_claims(roles=["admin"]),
        "good for ever": with_claims(exp=2**53),
        "expired": with_claims(exp=1),
        "exp as text": with_claims(exp="1"),
        "no exp": without(1, "exp"),
        "no iss": without(1, "iss"),
        "no sid": without(1, "sid"),
        "sub with half a character": text(claims_text=compact({**claims, "email": "\ud800"})),
        # Of issuers.
        "of an issuer nobody knows": with_claims(iss="https://elsewhere.example"),
        "of the product's issuer, unknown kid": issued(lambda n: hashlib.sha256(str(n).encode()).hexdigest()),
        "of the product's issuer, false signature": issued(lambda n: issuers_kid),
        "of the product's issuer, expired": issued(lambda n: issuers_kid, exp=1),
    }
