import base64
import hmac
import json
import time
from typing import Any

import pytest

from backend.core.errors import Unauthorized
from backend.utils.tokens import AccessClaims, ServiceClaims, TokenSigner

SECRET = "a secret of these tests, long enough"
HOUR_S = 3600


@pytest.fixture
def signer() -> TokenSigner:
    return TokenSigner(SECRET, "HS256", access_lifetime_s=HOUR_S)


def encode(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(
    claims: object, *, header: object = None, secret: str = SECRET, digest: str = "sha256", signature: str | None = None
) -> str:
    """A token made by hand: what no JWT library would sign."""
    head = encode({"alg": "HS256", "typ": "JWT"} if header is None else header)
    signed = f"{head}.{encode(claims)}"
    if signature is None:
        signature = encode(hmac.new(secret.encode(), signed.encode(), digest).digest())
    return f"{signed}.{signature}"


def good(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {"type": "access", "sub": "alice", "ver": 7, "iat": now, "exp": now + HOUR_S, "jti": "x"}
    return {name: value for name, value in {**claims, **changes}.items() if value is not ...}


def test_the_hand_made_token_would_pass_if_nothing_were_wrong_with_it(signer: TokenSigner) -> None:
    assert signer.read(forge(good())).sub == "alice"


def test_a_token_says_who_and_which_version_and_no_role(signer: TokenSigner) -> None:
    token = signer.sign_access("alice", 7)
    claims = signer.read(token)
    assert isinstance(claims, AccessClaims)
    assert (claims.sub, claims.ver, claims.exp - claims.iat) == ("alice", 7, HOUR_S)
    payload = token.split(".")[1]
    assert set(json.loads(base64.urlsafe_b64decode(payload + "=="))) == {"type", "sub", "ver", "iat", "exp", "jti"}


def test_no_two_tokens_are_the_same(signer: TokenSigner) -> None:
    assert signer.sign_access("alice", 7) != signer.sign_access("alice", 7)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_configured_algorithm_signs(algorithm: str) -> None:
    signer = TokenSigner(SECRET, algorithm, access_lifetime_s=HOUR_S)
    token = signer.sign_access("alice", 7)
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["alg"] == algorithm
    assert signer.read(token).sub == "alice"


@pytest.mark.parametrize("secret", ['"a quoted secret of many bytes"', '{"kty": "oct", "k": "AAAA", "x": 1}', "1" * 20])
def test_a_secret_that_looks_like_json_is_taken_as_it_is(secret: str) -> None:
    signer = TokenSigner(secret, "HS256", access_lifetime_s=HOUR_S)
    assert signer.read(forge(good(), secret=secret)).sub == "alice"


FORGED = {
    "nothing": lambda: "",
    "one part": lambda: "abc",
    "two parts": lambda: "abc.def",
    "four parts": lambda: forge(good()) + ".abc",
    "empty parts": lambda: "..",
    "not base64": lambda: "a.b.c",
    "not ascii": lambda: forge(good()) + "é",
    "a surrogate": lambda: forge(good()) + "\ud800",
    "spaces": lambda: " " + forge(good()),
    "a line break": lambda: forge(good()) + "\n",
    "a megabyte": lambda: "x" * 1_000_000,
    "a long valid one": lambda: forge(good(padding="x" * 5000)),
    "a header of brackets": lambda: forge(good(), header=b"[" * 1200),
    "a header that is a list": lambda: forge(good(), header=["HS256"]),
    "a header without alg": lambda: forge(good(), header={"typ": "JWT"}),
    "alg none, unsigned": lambda: forge(good(), header={"alg": "none"}, signature=""),
    "alg none, signed": lambda: forge(good(), header={"alg": "none"}),
    "alg NONE, signature kept": lambda: forge(good(), header={"alg": "NONE"}),
    "alg null": lambda: forge(good(), header={"alg": None}),
    "alg list": lambda: forge(good(), header={"alg": ["HS256"]}),
    "alg HS512 with the same secret": lambda: forge(good(), header={"alg": "HS512"}, digest="sha512"),
    "alg RS256": lambda: forge(good(), header={"alg": "RS256"}),
    "alg part of a name": lambda: forge(good(), header={"alg": "HS"}),
    "own key in the header": lambda: forge(
        good(), header={"alg": "HS256", "jwk": {"kty": "oct", "k": encode(b"k")}}, secret="k"
    ),
    "foreign secret": lambda: forge(good(), secret="another secret, just as long as that"),
    "empty secret": lambda: forge(good(), secret=""),
    "no signature": lambda: forge(good(), signature=""),
    "signature of something else": lambda: (
        forge(good(sub="bob")).rsplit(".", 1)[0] + "." + forge(good()).rsplit(".", 1)[1]
    ),
    "claims that are a list": lambda: forge([1, 2]),
    "claims that are not json": lambda: forge(b"{"),
    "claims that are not text": lambda: forge(b"\xff\xfe"),
    "no type": lambda: forge(good(type=...)),
    "wrong type": lambda: forge(good(type="refresh")),
    "type list": lambda: forge(good(type=["access"])),
    "no sub": lambda: forge(good(sub=...)),
    "sub number": lambda: forge(good(sub=7)),
    "sub null": lambda: forge(good(sub=None)),
    "no ver": lambda: forge(good(ver=...)),
    "ver text": lambda: forge(good(ver="7")),
    "ver true": lambda: forge(good(ver=True)),
    "ver fraction": lambda: forge(good(ver=7.5)),
    "no exp": lambda: forge(good(exp=...)),
    "exp text": lambda: forge(good(exp=str(int(time.time()) + 60))),
    "exp NaN": lambda: forge(good(exp=float("nan"))),
    "exp infinite": lambda: forge(good(exp=float("inf"))),
    "exp huge": lambda: forge(good(exp=10**400)),
    "exp far": lambda: forge(good(exp=10**15, iat=10**15 - 5)),
    "exp negative": lambda: forge(good(exp=-1)),
    "exp true": lambda: forge(good(exp=True)),
    "exp null": lambda: forge(good(exp=None)),
    "exp list": lambda: forge(good(exp=[int(time.time()) + 60])),
    "no iat": lambda: forge(good(iat=...)),
    "iat text": lambda: forge(good(iat="now")),
    "no jti": lambda: forge(good(jti=...)),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token_is_malformed_and_the_answer_tells_nothing_more(signer: TokenSigner, forged: Any) -> None:
    with pytest.raises(Unauthorized) as refused:
        signer.read(forged())
    assert refused.value.code == "invalid_api_key"
    assert refused.value.message.startswith("The token or API key is not one of this server.")
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize("ends_in_s", [0, -1, -10_000])
def test_a_token_that_has_expired_is_told_so(signer: TokenSigner, ends_in_s: int) -> None:
    end = int(time.time()) + ends_in_s
    with pytest.raises(Unauthorized, match="expired"):
        signer.read(forge(good(iat=end - HOUR_S, exp=end)))


def test_a_token_longer_than_now_allowed_has_expired_since_the_setting_was_lowered(signer: TokenSigner) -> None:
    token = TokenSigner(SECRET, "HS256", access_lifetime_s=2 * HOUR_S).sign_access("alice", 7)
    with pytest.raises(Unauthorized, match="expired"):
        signer.read(token)


def test_a_token_of_before_the_clock_went_back_stays_good(signer: TokenSigner) -> None:
    future = int(time.time()) + 2 * HOUR_S
    assert signer.read(forge(good(iat=future, exp=future + HOUR_S))).sub == "alice"


def test_an_endless_lifetime_makes_a_token_that_can_be_read() -> None:
    signer = TokenSigner(SECRET, "HS256", access_lifetime_s=1e18)
    assert signer.read(signer.sign_access("alice", 1)).sub == "alice"


def test_a_tiny_lifetime_makes_a_token_that_can_be_read() -> None:
    signer = TokenSigner(SECRET, "HS256", access_lifetime_s=0.001)
    token = signer.sign_access("alice", 1)
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["exp"] - claims["iat"] == 1


def test_a_service_token_names_the_user_and_the_session(signer: TokenSigner) -> None:
    claims = signer.read(signer.sign_service("alice", "session-1", lifetime_s=180))
    assert isinstance(claims, ServiceClaims)
    assert (claims.sub, claims.sid, claims.aud, claims.exp - claims.iat) == ("alice", "session-1", "tools", 180)


def test_a_token_of_one_kind_relabelled_is_no_token_of_the_other(signer: TokenSigner) -> None:
    assert isinstance(signer.read(signer.sign_access("alice", 7)), AccessClaims)
    assert isinstance(signer.read(signer.sign_service("alice", "s", lifetime_s=9)), ServiceClaims)
    with pytest.raises(Unauthorized):
        signer.read(forge(good(type="service")))
    with pytest.raises(Unauthorized):
        signer.read(forge(good(ver=..., sid="s", aud="tools")))


@pytest.mark.parametrize("changes", [{"aud": "main"}, {"aud": ...}, {"aud": ["tools"]}, {"sid": ...}, {"sid": 1}])
def test_a_service_token_with_another_audience_or_without_a_session_is_malformed(
    signer: TokenSigner, changes: dict[str, Any]
) -> None:
    right = {"type": "service", "aud": "tools", "sid": "s", "ver": ...}
    assert signer.read(forge(good(**right))).sid == "s"
    with pytest.raises(Unauthorized):
        signer.read(forge(good(**{**right, **changes})))
