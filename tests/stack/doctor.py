"""Runs `pycrudapi doctor`, and a standby for it to examine."""

import json
import re
import subprocess

from needs import postgres_program, run
from postgres import Cluster
from support import PROGRAM, clean_environment, until


class Doctor:
    """The program with exactly these settings."""

    def __init__(self, **settings):
        # No process listens on this port, so that no service of this machine is queried.
        self.environment = clean_environment(**{"HTTP_PORT": "9", "AUTH": "off", **settings})

    def with_settings(self, **more):
        other = Doctor()
        other.environment = {**self.environment, **{name: str(value) for name, value in more.items()}}
        return other

    def program(self, *words, check=True, **how):
        command = [PROGRAM, *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False, **how)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def findings(self, **how):
        done = self.program("doctor", "--format", "json", check=False, **how)
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        wrong = [finding for finding in found if finding["severity"] == "wrong"]
        status = 2 if any(finding["area"] == "settings" for finding in wrong) else int(bool(wrong))
        assert done.returncode == status, done.stdout
        return found

    def remedy(self, severity, words, **how):
        """Waits for the finding that matches the pattern, and returns its remedy."""
        seen = []

        def look():
            seen[:] = self.findings(**how)
            return next((one["mend"] for one in seen if one["severity"] == severity and re.search(words, one["what"])), None)

        try:
            return until(look, words)
        except AssertionError:
            raise AssertionError(f"{severity}: {words}, in {json.dumps(seen, indent=1)}") from None

    def has_no_finding(self, words):
        """Waits until no finding matches the pattern."""
        bad = []

        def look():
            bad[:] = [one for one in self.findings() if one["severity"] != "fine" and re.search(words, one["what"])]
            return not bad

        try:
            until(look, words)
        except AssertionError:
            raise AssertionError(f"still {words}: {bad}") from None


class Standby(Cluster):
    """`with Standby(primary) as standby:`, a standby with this application_name."""

    def __init__(self, primary, name, settings=None):
        super().__init__(settings)
        self.primary, self.name = primary, name

    def _make(self):
        self._as_user = self.primary._as_user
        if self._as_user:
            run(["chown", str(self._as_user["user"]), self.folder], cwd="/")
        self._data = f"{self.folder}/data"
        conninfo = f"host=127.0.0.1 port={self.primary.port} user=postgres application_name={self.name}"
        command = [postgres_program("pg_basebackup"), "-d", conninfo, "-D", self._data, "-R", "-c", "fast", "-X", "stream"]
        run(command, cwd="/", **self._as_user)

    def _answers(self):
        """True also if it answers that it accepts no sessions."""
        command = [postgres_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode in (0, 1)
