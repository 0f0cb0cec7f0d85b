"""An identity provider: a server of a key set, and an access token signed with its key. Requires openssl."""

import base64
import json
import pathlib
import shutil
import subprocess
import sys
import time

import support

AUDIENCE = "https://prove.test"
NAME = "prove"


class Provider:
    """`start()` and `stop()` control its server; `settings` are for the service, `token` and `principal` have the scope admin."""

    def __init__(self, directory):
        self._folder = directory / "identity"
        self._folder.mkdir()
        self._port = support.free_port()
        self._key = directory / "identity.pem"
        self.issuer = f"http://127.0.0.1:{self._port}"
        self.process = None
        _openssl("genpkey", "-algorithm", "ed25519", "-out", self._key)
        public = _openssl("pkey", "-in", self._key, "-pubout", "-outform", "DER")[-32:]
        key = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": NAME, "x": _base64(public)}
        (self._folder / "keys.json").write_text(json.dumps({"keys": [key]}), encoding="ascii")
        self.settings = {
            "AUTH_ISSUER": self.issuer,
            "AUTH_AUDIENCE": AUDIENCE,
            "AUTH_JWKS_URL": f"{self.issuer}/keys.json",
            # Short, so that the unavailability of the provider has an effect.
            "AUTH_JWKS_REFRESH": "1s",
        }
        self.principal = f"{self.issuer} {NAME}"
        self.token = self._sign()

    def _sign(self):
        # Valid for a day because clocks step by an hour; without iat, which would be in the future after a step back.
        claims = {"iss": self.issuer, "aud": AUDIENCE, "sub": NAME, "exp": int(time.time()) + 86_400, "scope": "admin"}
        parts = ({"alg": "EdDSA", "typ": "at+jwt", "kid": NAME}, claims)
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        text = pathlib.Path(f"{self._key}.text")
        text.write_text(signed, encoding="ascii")
        return f"{signed}.{_base64(_openssl('pkeyutl', '-sign', '-inkey', self._key, '-rawin', '-in', text))}"

    def start(self):
        command = [sys.executable, "-m", "http.server", str(self._port), "--bind", "127.0.0.1", "--directory", str(self._folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        if self.running:
            self.process.kill()
            self.process.wait()


def is_possible():
    return shutil.which("openssl") is not None


def _openssl(*words):
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True).stdout


def _base64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
