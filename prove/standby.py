"""A synchronous standby of a Cluster, which can be promoted when the primary is gone."""

import os
import signal
import subprocess

import support
from needs import postgres_program, run
from postgres import Cluster
from support import until

NAME = "standby"


class Standby(Cluster):
    """`with Standby(primary) as standby`; `promote()` when the primary is gone."""

    def __init__(self, primary):
        # Nothing can be committed while it is not connected, so it reconnects to a restarted primary at once and not after 5 s.
        super().__init__(primary._settings | {"wal_retrieve_retry_interval": "50ms"})
        self._primary = primary
        self.port = support.free_port()

    def _make(self):
        self._as_user = self._primary._as_user
        os.chown(self.folder, os.stat(self._primary.folder).st_uid, os.stat(self._primary.folder).st_gid)
        self._data = f"{self.folder}/data"
        run(
            [postgres_program("pg_basebackup"), "-D", self._data, "-R", "-X", "stream", "-c", "fast",
             "-d", f"host=127.0.0.1 port={self._primary.port} user=postgres application_name={NAME}"],
            cwd="/", **self._as_user,
        )  # fmt: skip

    def __enter__(self):
        super().__enter__()
        # Set only now: without a connected standby nothing could be committed.
        self._primary.psql("postgres", f"alter system set synchronous_standby_names = '{NAME}'", "select pg_reload_conf()")
        synchronous = "select count(*) from pg_stat_replication where sync_state = 'sync'"
        until(lambda: self._primary.psql("postgres", synchronous) == "1", "the standby is connected", 60)
        return self

    def promote(self):
        """Returns when it accepts writes."""
        command = [postgres_program("pg_ctl"), "promote", "-D", self._data, "-w", "-t", "60"]
        subprocess.run(command, cwd="/", check=True, stdout=subprocess.DEVNULL, **self._as_user)


def kill(cluster):
    """Kills the postmaster, as a power failure would."""
    os.kill(cluster.pid, signal.SIGKILL)
    until(lambda: not cluster.running, "it has exited")

