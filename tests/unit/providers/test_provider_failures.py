"""Every refusal that the specifications list, and the one error each becomes."""

from __future__ import annotations

import pytest

from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.providers import errors
from oracle.providers.failures import Dialect, error_of, quotable, read_complaint, retry_after_seconds

IONET = Dialect(credit_words=("credit", "quota", "insufficient", "billing", "spend"))


def judged(status: int, body: bytes, headers: dict[str, str] | None = None, **options: object) -> OracleError:
    settings = {"repeatable": False, "now": 0.0, **options}
    return error_of(status, headers or {}, body, **settings)  # type: ignore[arg-type]


# The fixtures of openai_compatible.md §3.1, in its order.
OPENAI = [
    (
        400,
        b'{"error":{"message":"Unsupported parameter: \'max_tokens\' is not supported with this model. Use '
        b'\'max_completion_tokens\' instead.","type":"invalid_request_error","param":"max_tokens",'
        b'"code":"unsupported_parameter"}}',
        errors.REQUEST_REFUSED,
    ),
    (
        401,
        b'{"error":{"message":"Incorrect API key provided: sk-tes***0001.","type":"invalid_request_error","param":null,'
        b'"code":"invalid_api_key"}}',
        errors.CREDENTIALS_REFUSED,
    ),
    (
        402,
        b'{"error":{"message":"Payment required","type":"billing_error","param":null,"code":"payment_required"}}',
        errors.OUT_OF_CREDIT,
    ),
    (
        403,
        b'{"error":{"message":"Project does not have access to model `x`","type":"invalid_request_error",'
        b'"param":null,"code":"model_not_found"}}',
        errors.MODEL_UNAVAILABLE,
    ),
    (
        404,
        b'{"error":{"message":"The model `nope` does not exist or you do not have access to it.",'
        b'"type":"invalid_request_error","param":null,"code":"model_not_found"}}',
        errors.MODEL_UNAVAILABLE,
    ),
    (
        409,
        b'{"error":{"message":"Conflict","type":"invalid_request_error","param":null,"code":"conflict"}}',
        errors.REQUEST_REFUSED,
    ),
    (
        422,
        b'{"error":{"message":"Unprocessable","type":"invalid_request_error","param":"messages","code":null}}',
        errors.REQUEST_REFUSED,
    ),
    (
        429,
        b'{"error":{"message":"Rate limit reached for gpt-x in organization org-x on tokens per min (TPM)...",'
        b'"type":"tokens","param":null,"code":"rate_limit_exceeded"}}',
        errors.RATE_LIMITED,
    ),
    (
        429,
        b'{"error":{"message":"You exceeded your current quota, please check your plan and billing details.",'
        b'"type":"insufficient_quota","param":null,"code":"insufficient_quota"}}',
        errors.OUT_OF_CREDIT,
    ),
    (
        500,
        b'{"error":{"message":"The server had an error while processing your request.","type":"server_error",'
        b'"param":null,"code":null}}',
        errors.UNAVAILABLE,
    ),
    (
        429,
        b'{"error":{"message":"Request rate increased too quickly. Please slow down.","type":"rate_limit_error",'
        b'"param":null,"code":"slow_down"}}',
        errors.RATE_LIMITED,
    ),
    (
        503,
        b'{"error":{"message":"The engine is currently overloaded","type":"service_unavailable_error","param":null,'
        b'"code":"server_is_overloaded"}}',
        errors.UNAVAILABLE,
    ),
    (502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", errors.UNAVAILABLE),
]

# Envelopes of the other servers (openai_compatible.md §6).
OTHERS = [
    (401, b'{"error":"Unauthorized"}', errors.CREDENTIALS_REFUSED),  # vLLM
    (
        404,
        b'{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}',
        errors.MODEL_UNAVAILABLE,
    ),
    # vLLM as it was long ago
    (
        404,
        b'{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","param":null,"code":404}',
        errors.MODEL_UNAVAILABLE,
    ),
    (501, b'{"error":{"message":"no","type":"NotImplementedError","param":null,"code":501}}', errors.REQUEST_REFUSED),
    (
        400,
        b'{"error":{"code":400,"message":"request (13392 tokens) exceeds the available context size (8192 tokens), '
        b'try increasing it","type":"exceed_context_size_error","n_prompt_tokens":13392,"n_ctx":8192}}',
        errors.REQUEST_REFUSED,
    ),
    (503, b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', errors.UNAVAILABLE),
    (400, b'{"message":"ValidationException"}', errors.REQUEST_REFUSED),  # AWS
    (
        403,
        b'{"Message":"User: arn:aws:x is not authorized to perform: bedrock:InvokeModel"}',
        errors.NOT_PERMITTED,
    ),
    (
        429,
        b'[{"error":{"code":429,"message":"Quota exceeded for requests per minute","status":"RESOURCE_EXHAUSTED"}}]',
        errors.RATE_LIMITED,
    ),
    (401, b'{"error":{"code":401,"message":"x","status":"UNAUTHENTICATED","details":[]}}', errors.CREDENTIALS_REFUSED),
]

# The fixtures of ionet.md §2.9.
IO_NET = [
    (401, b'{"detail":"Invalid API Key"}', errors.CREDENTIALS_REFUSED),
    (
        400,
        b'{"detail":"The requested model is not available for Chat Completions API. Available models: '
        b"['openai/gpt-oss-120b', 'zai-org/GLM-4.6']\"}",
        errors.MODEL_UNAVAILABLE,
    ),
    (
        422,
        b'{"detail":[{"type":"float_parsing","loc":["body","temperature"],"msg":"Input should be a valid number, '
        b'unable to parse string as a number","input":"hot"}]}',
        errors.REQUEST_REFUSED,
    ),
    (402, b'{"detail":"Insufficient credits"}', errors.OUT_OF_CREDIT),
    (403, b'{"detail":"Model is not allowed for this API key"}', errors.NOT_PERMITTED),
    (404, b'{"detail":"Not Found"}', errors.REQUEST_REFUSED),
    (409, b'{"detail":"Conflict"}', errors.REQUEST_REFUSED),
    (429, b'{"detail":"Too many requests"}', errors.RATE_LIMITED),
    (429, b'{"detail":"Credit limit exceeded for this API key"}', errors.OUT_OF_CREDIT),
    (500, b'{"detail":"Internal Server Error"}', errors.UNAVAILABLE),
    (503, b'{"detail":"Service temporarily unavailable"}', errors.UNAVAILABLE),
]


@pytest.mark.parametrize(("status", "body", "expected"), OPENAI + OTHERS)
def test_an_openai_style_refusal_becomes_its_error(status: int, body: bytes, expected: ErrorCode) -> None:
    assert judged(status, body).error is expected


@pytest.mark.parametrize(("status", "body", "expected"), IO_NET)
def test_a_refusal_of_io_net_becomes_its_error(status: int, body: bytes, expected: ErrorCode) -> None:
    assert judged(status, body, dialect=IONET).error is expected


@pytest.mark.parametrize("status", [504, 520, 524])
def test_an_origin_that_stays_silent_behind_its_gateway_may_have_taken_a_purchase(status: int) -> None:
    assert judged(status, b"<html></html>").verdict is Verdict.UNKNOWN
    assert judged(status, b"<html></html>", repeatable=True).verdict is Verdict.RETRY


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_wrong_address_and_not_followed(status: int) -> None:
    assert judged(status, b"", {"location": "https://elsewhere.example"}).error is errors.WRONG_ADDRESS


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[]", b"null", b"7", b'{"error":null}', b'{"detail":[[]]}', b"[" * 5000]
)
def test_a_body_that_says_nothing_leaves_the_status_to_speak(body: bytes) -> None:
    assert judged(500, body).error is errors.UNAVAILABLE
    assert judged(500, body).detail == "HTTP 500"


def test_a_refusal_names_the_providers_codes_and_words() -> None:
    detail = judged(*OPENAI[0][:2]).detail
    assert detail.startswith(
        "HTTP 400, unsupported_parameter, invalid_request_error, max_tokens, Unsupported parameter"
    )


def test_a_refused_key_is_not_repeated() -> None:
    assert "sk-" not in judged(*OPENAI[1][:2]).detail


def test_a_validator_that_repeats_the_prompt_is_not_quoted() -> None:
    prompt = "the secret plans of the moon base, second draft"
    body = b'{"error":{"message":"1 validation error: plans of the moon base","type":"Bad Request","code":400}}'
    assert judged(400, body, private=(prompt,)).detail == "HTTP 400, 400, Bad Request"


def test_what_a_validator_was_sent_is_left_out_of_its_finding() -> None:
    detail = judged(*IO_NET[2][:2]).detail
    assert "body.temperature" in detail
    assert "hot" not in detail


@pytest.mark.parametrize(
    "key", ["sk-abcdefgh", "nos_abcdefgh", "io-v2-abcdefgh", "Bearer abc", "eyJhbGciOiJIUzI1NiJ9.x"]
)
def test_a_key_inside_a_message_is_blotted_out(key: str) -> None:
    assert key not in quotable(f"the key {key} is odd", ())
    assert "[key]" in quotable(f"the key {key} is odd", ())


def test_a_short_private_text_is_found_too() -> None:
    assert quotable("you said hello twice", ("hello",)) == ""
    assert quotable("you said hello twice", ("",)) == "you said hello twice"


def test_a_long_message_is_cut_to_one_line() -> None:
    assert quotable("a\nb " * 500, ()) == ("a b " * 50)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:10 GMT"}, 10.0),
        ({"retry-after": "86400"}, 3600.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, now=60.0) == seconds


def test_a_rate_limit_carries_how_long_to_wait() -> None:
    assert judged(*OPENAI[7][:2], {"retry-after": "2"}).retry_after_seconds == 2.0
    assert judged(*OPENAI[7][:2]).retry_after_seconds is None


def test_a_sentence_in_place_of_a_code_is_dropped() -> None:
    assert read_complaint(b'{"error":{"code":"what, is this? a prompt!","message":"m"}}').code == ""
