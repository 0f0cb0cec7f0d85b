"""A small HTTP/1.1 client that counts requests and distinguishes three results: answered, not sent, and answer lost."""

import asyncio
import collections
import json

HOST = "127.0.0.1"
CONNECT_SECONDS = 5.0
# Longer than any deadline of the stack, so that the stack and not this client ends a wait.
ANSWER_SECONDS = 60.0

# docs/api.md: these carry Retry-After, unless the outcome is unknown.
RETRY_AFTER = (429, 502, 503, 504)


class NotSent(Exception):
    """No connection could be opened: the request was certainly not applied."""


class Lost(Exception):
    """No complete answer was received: the request may or may not have been applied."""


class Answer:
    """Status, headers (names in lower case) and body."""

    __slots__ = ("status", "headers", "body")

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def code(self):
        """The problem's code; None if the body is not a problem document."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        return self.json().get("code")

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:300]!r}"


class Counts:
    """Results of the requests of any number of clients."""

    def __init__(self):
        self.requests = self.not_sent = self.lost = 0
        self.statuses = collections.Counter()

    def failed(self):
        """{status: count} of 429 and 5xx."""
        return {status: n for status, n in sorted(self.statuses.items()) if status == 429 or status >= 500}

    def summary(self):
        """For `Result.counted`."""
        failed = {str(status): n for status, n in self.failed().items()}
        return {"requests": self.requests, **failed, "not sent": self.not_sent, "no answer": self.lost}


class Client:
    """One keep-alive connection, reopened after it broke. `where` is a local port or the path of a Unix socket."""

    def __init__(self, where, counts=None, seconds=ANSWER_SECONDS):
        self._where, self._seconds = where, seconds
        self.counts = counts or Counts()
        self._reader = self._writer = None

    async def request(self, method, target, body=None, headers=None):
        """Sends one request; `body` is bytes, or a value that is sent as JSON.

        Raises NotSent or Lost.
        """
        self.counts.requests += 1
        message = _message(method, target, body, headers or {})
        try:
            if self._writer is None or self._writer.is_closing() or self._reader.at_eof():
                self.close()
                await self._open()
        except (OSError, TimeoutError) as error:
            self.counts.not_sent += 1
            raise NotSent(repr(error)) from error
        try:
            self._writer.write(message)
            async with asyncio.timeout(self._seconds):
                answer = await self._read(method)
        except (OSError, EOFError, TimeoutError, ValueError, IndexError) as error:
            self.close()
            self.counts.lost += 1
            raise Lost(repr(error)) from error
        except BaseException:
            self.close()
            raise
        self.counts.statuses[answer.status] += 1
        return answer

    async def _open(self):
        async with asyncio.timeout(CONNECT_SECONDS):
            if isinstance(self._where, int):
                self._reader, self._writer = await asyncio.open_connection(HOST, self._where)
            else:
                self._reader, self._writer = await asyncio.open_unix_connection(str(self._where))

    async def _read(self, method):
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status, headers = int(lines[0].split()[1]), {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if method != "HEAD" and status not in (204, 304):
            body = await self._body(headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)

    async def _body(self, headers):
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self._reader.read()
        parts = []
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readuntil(b"\r\n")
        return b"".join(parts)

    def close(self):
        """Aborts the connection, including any request in flight."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.close()


def _message(method, target, body, headers):
    lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST}"]
    if body is None:
        payload = b""
    else:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        if "Content-Type" not in headers:
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(payload)}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload


def malformation(answer, repeatable=False):
    """What is wrong with the form of an error answer; None if it is well-formed. A `repeatable` request may be retried
    regardless of its outcome."""
    if answer.headers.get("content-type") != "application/problem+json":
        return f"{answer.status} is not a problem document"
    problem = answer.json()
    if problem.get("status") != answer.status:
        return f"{answer.status} has status member {problem.get('status')}"
    if not problem.get("code") or problem.get("type") != f"/docs/problems/{problem['code']}":
        return f"{answer.status} has code {problem.get('code')} and type {problem.get('type')}"
    # HTTP clients treat Retry-After as permission to repeat the request.
    may_repeat = repeatable or problem["code"] != "outcome-unknown"
    if answer.status in RETRY_AFTER and may_repeat != answer.headers.get("retry-after", "").isdecimal():
        return f"{answer.status} {problem['code']} has Retry-After {answer.headers.get('retry-after')}"
    return None
