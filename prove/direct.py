"""The database of what is broken, past everything that is broken between it and the service."""

import subprocess

import postgres_wire
import support


class Direct:
    """Has `direct_url` and `resources_dir`."""

    def run(self, *words, text=None):
        """A subcommand of the program on the same database; its status and what it wrote."""
        environment = support.clean_environment(DATABASE_URL=self.direct_url, RESOURCES_DIR=self.resources_dir, SEED="false")
        done = subprocess.run(
            [support.BINARY_DIR / "pycrudapi", *words], input=text, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    async def psql(self, *commands):
        """(whether all was done, what it said)."""
        return await postgres_wire.psql(self.direct_url, *commands)
