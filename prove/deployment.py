"""Access to a deployment's database that bypasses the faults injected between it and the service."""

import asyncio
import contextlib
import subprocess

import postgres_wire
import support


class Deployment:
    """Base of single.py and scaled.py; a subclass sets `direct_url` and `resources_dir`."""

    def run(self, *words, text=None):
        """Runs a subcommand of pycrudapi on the same database; (exit status, standard output, standard error)."""
        environment = support.clean_environment(DATABASE_URL=self.direct_url, RESOURCES_DIR=self.resources_dir, SEED="false")
        done = subprocess.run(
            [support.BINARY_DIR / "pycrudapi", *words], input=text, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    async def psql(self, *commands):
        """(whether psql succeeded, its output)."""
        return await postgres_wire.psql(self.direct_url, *commands)


@contextlib.asynccontextmanager
async def supervised(one):
    """Supervises a started deployment during the block."""
    supervisor = asyncio.create_task(one.supervise())
    try:
        yield
    finally:
        # Not cancelled: a process that one of its threads is starting would be left behind.
        one.is_stopping = True
        await asyncio.gather(supervisor, return_exceptions=True)
        one.resume_stopped()
