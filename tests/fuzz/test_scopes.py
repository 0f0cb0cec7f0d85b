"""Generated bodies and headers, sent with a token of each scope: no answer is a server error, exactly the operations of a scope are allowed, and
other rows are not changed."""

import json
import os
import random
import re
import subprocess
import uuid

import pytest

import support

# The same requests each time, unless a number of examples is set; the printed seed repeats them.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
SEED = os.environ.get("FUZZ_SEED") or (str(random.randrange(2**32)) if "FUZZ_EXAMPLES" in os.environ else "1")

SETTINGS = {"RATE_LIMIT": "off", "CONN_LIMIT": "off", "LOG": "error", "ACCESS_LOG": "off", "AUTH": "on"}
DESCRIPTIONS = str(support.REPOSITORY / "tests" / "support" / "resources")

# None means no token.
SCOPES = (
    None, "passengers:read", "passengers:create", "passengers:update", "passengers:delete", "passengers:*", "ledger:* steps:* air-quality:*",
    "*:read", "*:create", "admin",
)  # fmt: skip
ACTIONS = {"get": "read", "post": "create", "put": "update", "patch": "update", "delete": "delete"}
# The resources of URLs that are not /v1/<resource>.
SHORT = {"air_quality": "air-quality", "api": "air-quality"}
# The visible effects of each permission. The update permission includes restoring deleted rows.
CHANGES = {"create": {"created"}, "update": {"changed", "created"}, "delete": {"deleted"}}
# Members of a row that change when it is read.
VOLATILE = {"lastUsedAt", "uses"}


def required_scope(method, template):
    """The scope that a route requires, according to the documentation; None if it requires none."""
    first, *rest = template.strip("/").split("/")
    if first == "v1" and rest[0] == "tokens":
        return "admin"
    if first == "v1":
        resource = rest[0]
    else:
        resource = SHORT.get(first) or ("passengers" if "passenger" in first else None)
    if resource in (None, "principal"):
        return None
    return f"{resource}:{'update' if template.endswith('/restore') else ACTIONS[method]}"


def permits(scopes, wanted):
    resource, _, action = wanted.partition(":")
    granted = (scopes or "").split()
    return bool({"admin", wanted, f"{resource}:*", f"*:{action}", "*:*"} & set(granted)) if action else "admin" in granted


# --- generated requests -------------------------------------------------------------------------------------------

VALUES = (
    None, True, 0, -1, 1.5, -0.0, 2**31, 2**63, 10**40, 1e308, "", "x", "\0", "é", "\U0001f600", "a" * 5000, "2026-02-30", "12:00",
    [], {}, [[]], {"a": {"b": 1}}, "' or 1=1 --", "=1+1",
)  # fmt: skip
BYTES = (b"", b" ", b"{", b"[", b"[]", b"null", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 3000, b'{"a":1,"a":2}', b"1e999", b"NaN", b'"\\ud800"', b"\x1f\x8b\x08")
HEADERS = {
    "if-match": ('"2"', "*", "2", 'W/"2"', '"x"', '"99999999999999999999"'),
    "if-none-match": ('"2"', "*", "x"),
    "prefer": ("return=representation", "handling=lenient", "return=nothing", "x" * 500),
    "idempotency-key": ('"a"', "b", "", "x" * 300, "a b"),
    "accept": ("text/csv", "application/x-ndjson", "image/png", "*/*;q=0", "nonsense"),
    "content-encoding": ("gzip", "br", "identity", "gzip, gzip"),
    "traceparent": ("00-0-0-0", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
}
QUERIES = ("", "limit=1", "limit=x", "offset=-1", "order=name.up", "select=nothing", "name=eq.x", "age=gte.", "at=7", "at=then", "%00=1", "a=%ff", "after=zz")


def generated_body(dice, media_type, examples):
    """A body that is often almost valid."""
    if not examples or dice.random() < 0.2:
        return dice.choice(BYTES)
    example = dice.choice(examples)
    if isinstance(example, str):
        text = bytearray(example.encode())
        for _ in range(dice.randrange(3)):
            place = dice.randrange(len(text) + 1)
            text[place : place + dice.randrange(3)] = dice.choice((b",", b'"', b"\n", b"\0", b"\xff", b"9" * 30, b"\r", b""))
        return bytes(text)
    example = json.loads(json.dumps(example))
    row = dice.choice(example) if isinstance(example, list) and example else example
    if isinstance(row, dict) and row:
        for _ in range(dice.choice((0, 0, 1, 2))):
            name = dice.choice([*row, "unknown", "uuid", "version"])
            if dice.random() < 0.3:
                row.pop(name, None)
            else:
                row[name] = dice.choice(VALUES)
    if media_type == "application/x-www-form-urlencoded":
        return "&".join(f"{name}={value}" for name, value in row.items()).encode(errors="surrogatepass")
    text = json.dumps(example).encode()
    return text[: dice.randrange(len(text))] if dice.random() < 0.1 else text


class Operation:
    def __init__(self, document, method, template, described):
        self.method, self.template, self.scope = method, template, required_scope(method, template)
        told = [scope for one in described.get("security", []) for scope in one.get("bearer", []) if scope]
        assert told == [self.scope] if self.scope else not told, f"{method} {template}: {told}"
        self.bodies = {}
        for media_type, content in described.get("requestBody", {}).get("content", {}).items():
            found = [one["value"] for one in content.get("examples", {}).values() if "value" in one]
            self.bodies[media_type] = found + ([content["example"]] if "example" in content else [])

    def request(self, dice, keys):
        """(method, target, body, headers), valid in HTTP, so that nginx rejects none."""
        wrong = lambda: dice.random() < 0.15  # noqa: E731  # of each part, so that much of the whole is right
        nobodys = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        key = dice.choice((nobodys, "x", "%ff", "1")) if wrong() or not keys else dice.choice(keys)
        if "tokens" in self.template:
            # The tokens of this test must not be revoked.
            key = nobodys
        target = self.template.replace("{uuid}", key).replace("{id}", key)
        if wrong() and (query := dice.choice(QUERIES)):
            target += f"?{query}"
        headers, body = {}, None
        if self.method != "get":
            media_type = dice.choice(("text/plain", "application/json; charset=latin1") if wrong() or not self.bodies else [*self.bodies])
            body, headers["content-type"] = generated_body(dice, media_type, self.bodies.get(media_type, [])), media_type
        for name in dice.sample(sorted(HEADERS), dice.randrange(1, 3) if wrong() else 0):
            headers[name] = dice.choice(HEADERS[name])
        return self.method.upper(), target, body, headers


# --- the service --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack():
    with support.running_stack(**SETTINGS, RESOURCES_DIR=DESCRIPTIONS) as one:
        yield one


def make_token(stack, scopes):
    command = [support.BINARY_DIR / "pycrudapi", "token", "create", "--name", "fuzz", "--scope", scopes]
    return subprocess.run(command, env=stack.environment, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def rows(stack, resources, token):
    """{resource: {key: row}} of all rows."""
    found, headers = {}, {"authorization": f"Bearer {token}", "accept": "application/json"}
    for resource in resources:
        listed, page = [], f"/v1/{resource}" + ("" if resource == "tokens" else "?limit=1000")
        while page:
            answer = stack.request("GET", page, headers=headers)
            assert answer.status == 200, answer
            told = answer.json()
            # The list, or an object that contains it.
            (told,) = [told] if isinstance(told, list) else [value for value in told.values() if isinstance(value, list)]
            listed += [{name: value for name, value in row.items() if name not in VOLATILE} for row in told]
            more = re.search(r'<([^>]*)>; rel="next"', answer.headers.get("link", ""))
            page = more and more[1]
        found[resource] = {str(row.get("uuid") or row.get("id")): row for row in listed}
    return found


def changes(before, after):
    return {
        resource: {
            "created": after[resource].keys() - rows_before.keys(),
            "deleted": rows_before.keys() - after[resource].keys(),
            "changed": {key for key in rows_before.keys() & after[resource].keys() if rows_before[key] != after[resource][key]},
        }
        for resource, rows_before in before.items()
    }


def test_a_token_of_each_scope_does_what_it_may_and_nothing_else_whatever_is_sent(stack):
    print(f"seed {SEED}", flush=True)
    document = stack.request("GET", "/openapi.json").json()
    operations = [
        Operation(document, method, template, described)
        for template, methods in document["paths"].items()
        for method, described in methods.items()
        if method in ACTIONS and required_scope(method, template)
    ]
    resources = sorted({one.scope.partition(":")[0] for one in operations if one.method != "get" and ":" in one.scope})
    assert {"passengers", "steps"} < set(resources) and len(operations) > 30, resources
    tokens = {scopes: make_token(stack, scopes) for scopes in SCOPES if scopes}
    admin = tokens["admin"]
    answered = {}
    for scopes in SCOPES:
        # The same requests for each scope, except for the keys of existing rows.
        dice = random.Random(SEED)
        before = rows(stack, [*resources, "tokens"], admin)
        credentials = {"authorization": f"Bearer {tokens[scopes]}"} if scopes else {}
        for operation in operations:
            keys = sorted(before.get(operation.scope.partition(":")[0], {}))
            for _ in range(EXAMPLES):
                method, target, body, headers = operation.request(dice, [key for key in keys if len(key) == 36])
                answer = stack.request(method, target, body, {**headers, **credentials})
                told = (scopes, method, target, headers, body, answer)
                assert answer is not None and answer.status < 500, told
                if permits(scopes, operation.scope):
                    assert answer.status not in (401, 403), told
                elif scopes:
                    support.assert_problem(answer, 403, "insufficient-scope")
                    assert f'scope="{operation.scope}"' in answer.headers["www-authenticate"], told
                else:
                    support.assert_problem(answer, 401, "unauthenticated")
                answered[answer.status] = answered.get(answer.status, 0) + 1
        for resource, seen in changes(before, rows(stack, [*resources, "tokens"], admin)).items():
            if resource == "tokens":
                allowed = {"created", "changed"} if scopes == "admin" else set()
            else:
                allowed = {change for action, each in CHANGES.items() if permits(scopes, f"{resource}:{action}") for change in each}
            assert {what for what, keys in seen.items() if keys} <= allowed, (scopes, resource, seen)
    print(dict(sorted(answered.items())))
    assert {200, 201, 204, 400, 401, 403, 404, 422} <= answered.keys(), "requests of each kind were made up"
