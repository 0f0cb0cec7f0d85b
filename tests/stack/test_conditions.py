"""Conditional requests through nginx, from a client that accepts compressed answers."""

from support import PASSENGER, assert_problem

COMPRESSED = {"accept-encoding": "gzip"}
PATCH = {**COMPRESSED, "content-type": "application/merge-patch+json"}


def test_tags_stay_strong_end_to_end_for_a_client_that_takes_gzip(stack):
    stack = stack()
    # The largest possible passenger: a name of 150 characters, each of which JSON escapes with six.
    largest = {**PASSENGER, "name": "\x01" * 150, "fare": 1.7976931348623157e308, "age": 12.345678901234567}
    largest |= {"siblingsOrSpousesAboard": 2**31 - 1, "parentsOrChildrenAboard": 2**31 - 1}
    created = stack.request("POST", "/v1/passengers", body=largest, headers=COMPRESSED)
    assert created.status == 201, created
    url, tag = created.headers["location"], created.headers["etag"]

    read = stack.request("GET", url, headers=COMPRESSED)
    assert (read.headers["etag"], read.body) == (tag, created.body)
    assert not tag.startswith("W/")
    known = stack.request("GET", url, headers={**COMPRESSED, "if-none-match": tag})
    assert (known.status, known.headers["etag"], known.body) == (304, tag, b"")

    patched = stack.request("PATCH", url, b'{"age":null}', {**PATCH, "if-match": tag})
    assert patched.status == 200, patched
    assert patched.json() == {**created.json(), "age": None}
    assert patched.headers["etag"] not in (tag, f"W/{tag}")
    for method, body in (("PATCH", b'{"age":1}'), ("DELETE", None)):
        stale = stack.request(method, url, body, {**PATCH, "if-match": tag})
        assert_problem(stale, 412, "precondition-failed")
    refused = stack.request("PATCH", url, b"{}", {"content-type": "text/plain"})
    assert_problem(refused, 415, "unsupported-media-type")
    assert refused.headers["accept-patch"] == "application/merge-patch+json, application/json"
    assert stack.request("DELETE", url, headers={"if-match": patched.headers["etag"]}).status == 204
