"""The certified OpenID provider of `identity/`, started for a test, and a client for it."""

import base64
import contextlib
import hashlib
import http.client
import json
import re
import secrets
import signal
import urllib.parse

from support import REPOSITORY, Process, clean_environment, free_port, until

AUDIENCE = "urn:pycrudapi"
REDIRECT = "http://localhost/"


class Client:
    """A client of a provider on a local port."""

    def __init__(self, port, redirect=REDIRECT):
        self.port, self.redirect = port, redirect
        self.issuer = f"http://localhost:{port}"

    def request(self, method, target, form=None, headers=None):
        """The status, headers and body of the answer to one request on a new connection."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=30)
        with contextlib.closing(connection):
            body = urllib.parse.urlencode(form) if form else None
            kind = {"content-type": "application/x-www-form-urlencoded"} if form else {}
            connection.request(method, target, body, {**kind, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()

    def job_token(self, scope):
        """An access token of the client-credentials flow."""
        credentials = base64.b64encode(b"job:only-for-trials").decode()
        form = {"grant_type": "client_credentials", "scope": scope}
        status, _, body = self.request("POST", "/token", form, {"authorization": f"Basic {credentials}"})
        assert status == 200, body
        return json.loads(body)["access_token"]

    def sign_in(self, name, scope):
        """The answer of the token endpoint after an authorization code flow with PKCE, as a browser does it."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = urllib.parse.urlencode({
            "client_id": "page", "response_type": "code", "redirect_uri": self.redirect, "scope": f"openid {scope}",
            "code_challenge": challenge, "code_challenge_method": "S256", "nonce": "n", "state": "s",
        })  # fmt: skip
        cookies, target, form = {}, f"/auth?{query}", None
        # Follows redirects and forms: sign-in, consent, and back to the page.
        for _ in range(12):
            cookie = "; ".join(f"{key}={value}" for key, value in cookies.items())
            status, headers, body = self.request("POST" if form else "GET", target, form, {"cookie": cookie})
            for line in headers.get_all("set-cookie") or []:
                key, _, value = line.partition(";")[0].partition("=")
                cookies[key] = value
            if status in (302, 303):
                location = headers["location"]
                if location.startswith(f"{self.redirect}?"):
                    answer = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(location).query))
                    break
                target, form = location.removeprefix(self.issuer), None
                continue
            assert status == 200, (status, body)
            prompt = re.search(r'name="prompt" value="(\w+)"', body)[1]
            target = re.search(r'action="([^"]+)"', body)[1].removeprefix(self.issuer)
            form = {"prompt": prompt, "login": name, "password": "any"} if prompt == "login" else {"prompt": prompt}
        else:
            raise AssertionError("no end of the redirects")
        assert "code" in answer, answer
        form = {
            "grant_type": "authorization_code", "client_id": "page", "code": answer["code"],
            "redirect_uri": self.redirect, "code_verifier": verifier,
        }  # fmt: skip
        status, _, body = self.request("POST", "/token", form)
        assert status == 200, body
        return json.loads(body)


class Provider(Client):
    """A provider that can be stopped, and restarted with the same or with other keys."""

    def __init__(self, directory, **settings):
        super().__init__(free_port())
        self.directory, self.settings = directory, settings
        self.generation = 0
        self.process = None

    def start(self):
        self.process = Process(
            ["node", REPOSITORY / "identity" / "provider.mjs"],
            clean_environment(
                **{
                    "PORT": self.port, "ISSUER": self.issuer, "AUDIENCE": AUDIENCE, "REDIRECT_URIS": REDIRECT,
                    "KEYS": self.directory / f"keys-{self.generation}.json", **self.settings,
                }
            ),
        )  # fmt: skip
        until(lambda: not self.process.running or self.answers(), "the provider answers", 60)
        assert self.process.running, self.process.output
        return self

    def answers(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/.well-known/openid-configuration")[0] == 200

    def stop(self):
        if self.process and self.process.running:
            self.process.signal(signal.SIGTERM)
            self.process.wait()

    def rotate(self):
        """Restarts with new keys."""
        self.stop()
        self.generation += 1
        return self.start()
