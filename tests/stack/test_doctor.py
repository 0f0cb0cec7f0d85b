"""`pycrudapi doctor` on its own PostgreSQL, for faults of a whole cluster: clock, transaction ids, WAL, and backups."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest

from doctor import Doctor
from needs import postgres_program
from postgres import Cluster
from support import REPOSITORY, open_to_all, short_directory, until

sys.path.append(str(REPOSITORY / "prove"))

from shims import Clock  # noqa: E402

DATABASE = "looked_at"
HOUR = 3600
POSTGRES = {
    "shared_buffers": "32MB",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
    "wal_init_zero": "off",
    "archive_mode": "on",
    # So high that PostgreSQL does not freeze by itself, a misconfiguration seen in practice.
    "autovacuum_freeze_max_age": "2000000000",
    "autovacuum": "on",
    "max_prepared_transactions": "2",
}


class Patient(Doctor):
    """A database with a schema, its clock, and the doctor for it."""

    def __init__(self, cluster, clock, directory):
        self.cluster, self.clock, self.directory = cluster, clock, directory
        cluster.create(DATABASE)
        # Not on the command line, because a test could not change it there.
        cluster.psql("postgres", "alter system set archive_command = 'true'", "select pg_reload_conf()")
        url = cluster.url(DATABASE).replace("postgres@", "pycrudapi@")
        super().__init__(DATABASE_URL=url, MIGRATE_USER="postgres")
        self.program("migrate")

    def psql(self, *commands):
        return self.cluster.psql(DATABASE, *commands)

    def set_clock(self, ahead):
        """Sets PostgreSQL's clock so many seconds ahead. Its processes read the setting once a second."""
        self.clock.step(ahead)
        until(lambda: abs(float(self.psql("select extract(epoch from clock_timestamp())")) - time.time() - ahead) < 60, f"a clock {ahead} s ahead")


@pytest.fixture(scope="module")
def patient():
    with short_directory() as directory:
        clock = Clock(directory, "postgres")
        if clock.unsupported_reason:
            pytest.skip(clock.unsupported_reason)
        open_to_all(directory)
        with Cluster(POSTGRES, clock.environment) as cluster:
            yield Patient(cluster, clock, directory)


def write_wal(patient, segments):
    """Writes this many WAL segments of 16 MB, nearly all of which is unused space."""
    patient.psql(*["select pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()"] * segments)


def test_a_wal_that_cannot_be_archived_is_wrong(patient):
    patient.has_no_finding("archiving")
    patient.psql("alter system set archive_command = 'false'", "select pg_reload_conf()")
    write_wal(patient, 1)
    assert "archive_command" in patient.remedy("wrong", "archiving WAL has failed since [0-9A-F]{24}")
    patient.psql("alter system set archive_command = 'true'", "select pg_reload_conf()")
    write_wal(patient, 1)
    patient.has_no_finding("archiving")


def test_a_slot_that_retains_much_wal_is_wrong_and_its_sql_fixes_it(patient):
    patient.psql("select pg_create_physical_replication_slot('forgotten', true)")
    patient.remedy("warning", "replication slot forgotten")
    write_wal(patient, 70)
    sql = patient.remedy("wrong", "replication slot forgotten is inactive and retains 1[0-9]{3} MiB").partition("or: ")[2]
    patient.psql(sql, "checkpoint")
    patient.has_no_finding("replication slot")


def test_backups_that_are_missing_old_or_failed_are_reported_until_there_is_one(patient):
    place = patient.directory / "backups"
    missing = patient.remedy("warning", "no backup has succeeded yet")
    undrilled = patient.remedy("warning", "no restore drill has succeeded yet")
    commands = [command.replace("DIR", str(place)).split()[1:] for command in (missing, undrilled)]
    for command in commands:
        patient.program(*command)
    patient.has_no_finding("backup|drill")
    patient.set_clock(27 * HOUR)
    patient.remedy("warning", "the newest backup is 27 hours old")
    patient.has_no_finding("drill")
    patient.set_clock(9 * 24 * HOUR)
    patient.remedy("warning", "the newest restore drill is 216 hours old")
    patient.set_clock(0)
    patient.has_no_finding("backup|drill")
    patient.psql("insert into maintenance_runs (kind, started_at, finished_at, succeeded, message) values ('backup', now(), now(), false, 'no room')")
    patient.remedy("wrong", "the newest backup failed: no room")
    patient.program(*commands[0])
    patient.has_no_finding("backup")


def test_a_clock_that_is_wrong_is_reported(patient):
    patient.has_no_finding("clock")
    for step in (HOUR, -HOUR):
        patient.set_clock(step)
        assert "set-ntp" in patient.remedy("warning", "PostgreSQL's clock and this machine's differ by 3(600|59[0-9]|60[0-9]) s")
    patient.set_clock(0)
    patient.has_no_finding("clock")


@contextlib.contextmanager
def session_in_transaction(patient, *statements):
    """The process id of a session of psql that has executed these statements in a transaction."""
    command = ["psql", "-XqAt", patient.cluster.url(DATABASE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as session:
        session.stdin.write("; ".join(["begin", *statements, "select pg_backend_pid();\n"]))
        session.stdin.flush()
        yield int(session.stdout.readline())


def test_an_idle_transaction_is_reported_and_its_sql_ends_it(patient):
    with session_in_transaction(patient) as pid:
        patient.has_no_finding("session")
        patient.set_clock(HOUR)
        sql = patient.remedy("warning", f"session {pid} has been idle in a transaction for 3[0-9]{{3}} s")
        patient.psql(sql)
        patient.has_no_finding("session")
        patient.set_clock(0)


def test_nearly_exhausted_transaction_ids_are_reported_and_vacuum_fixes_that(patient):
    patient.has_no_finding("oldest row")
    for hundreds_of_millions, severity in ((6, "warning"), (16, "wrong")):
        patient.cluster.skip_transactions(hundreds_of_millions * 100_000_000)
        mend = patient.remedy(severity, f"the oldest row of {DATABASE} is {hundreds_of_millions - 1}99[0-9]{{6}} transactions old")
    patient.psql(mend.partition(";")[0])
    patient.has_no_finding(f"oldest row of {DATABASE}")
    # The age of any database stops writes in all of them.
    assert "in the database template1" in patient.remedy("wrong", "the oldest row of template1")
    for database in ("postgres", "template1"):
        patient.cluster.psql(database, "vacuum (freeze)")
    patient.has_no_finding("oldest row")


def test_a_session_that_locks_a_table_is_reported_first_and_its_sql_ends_it(patient):
    # Without a step of the clock, which would also move the lock timeout of the doctor's sessions.
    with session_in_transaction(patient, "lock table passengers") as pid:
        sql = patient.remedy("wrong", f"session {pid} .psql. has held a lock that requests need")
        found = patient.findings()
        assert f"session {pid} " in found[0]["what"], found
        assert any("the schema cannot be checked" in one["what"] for one in found)
        # The checks of other areas are carried out.
        assert any("no index is invalid" in one["what"] for one in found)
        patient.psql(sql)
    patient.has_no_finding("lock|cannot be checked")


def test_a_lock_that_no_request_needs_is_not_reported(patient):
    with session_in_transaction(patient, "create temporary table own (n integer)") as pid:
        patient.set_clock(HOUR)
        # The transaction is found, and its lock is not.
        patient.remedy("warning", f"session {pid} has been idle in a transaction for 3[0-9]{{3}} s")
        patient.has_no_finding("held a lock")
        patient.set_clock(0)


def test_a_prepared_transaction_that_was_left_is_reported_and_its_sql_ends_it(patient):
    patient.psql("begin; create table left_over (n integer); prepare transaction 'it''s left'")
    patient.has_no_finding("prepared transaction")
    patient.set_clock(HOUR)
    mend = patient.remedy("wrong", f"the prepared transaction 'it''s left' of the database {DATABASE} has been waiting for 3[0-9]{{3}} s")
    patient.psql(mend.partition("gone: ")[2])
    patient.has_no_finding("prepared transaction")
    patient.set_clock(0)


def test_a_slot_whose_wal_was_removed_or_whose_reader_has_stopped_is_reported(patient):
    patient.psql("select pg_create_physical_replication_slot('limited', true)", "alter system set max_slot_wal_keep_size = '1MB'", "select pg_reload_conf()")
    write_wal(patient, 6)
    patient.psql("checkpoint")
    sql = patient.remedy("wrong", "the WAL that the replication slot limited needs is gone").partition(" then")[0]
    patient.psql("alter system reset max_slot_wal_keep_size", "select pg_reload_conf()", sql)
    patient.has_no_finding("replication slot")
    target = patient.directory / "received"
    target.mkdir()
    patient.psql("select pg_create_physical_replication_slot('stopped', true)")
    with subprocess.Popen([postgres_program("pg_receivewal"), "-D", target, "-S", "stopped", "-d", patient.cluster.url("postgres")]) as reader:
        try:
            until(lambda: patient.psql("select active from pg_replication_slots") == "t", "it reads")
            reader.send_signal(signal.SIGSTOP)
            write_wal(patient, 70)
            assert "max_slot_wal_keep_size" in patient.remedy("wrong", "the consumer of the replication slot stopped is 1[0-9]{3} MiB of WAL behind")
        finally:
            reader.kill()
    until(lambda: patient.psql("select active from pg_replication_slots") == "f", "it has ended")
    patient.psql("select pg_drop_replication_slot('stopped')", "checkpoint")
    patient.has_no_finding("replication slot")


def test_a_collation_that_the_system_has_replaced_is_reported_and_its_sql_repairs_it(patient):
    if int(patient.psql("show server_version_num")) < 150000:
        pytest.skip("PostgreSQL 14 does not record the version of a database's collation")
    patient.psql("create database collated template template0 locale_provider icu icu_locale 'en'")
    url = patient.environment["DATABASE_URL"].replace(f"/{DATABASE}", "/collated")
    doctor = patient.with_settings(DATABASE_URL=url)
    doctor.program("migrate")
    doctor.has_no_finding("collation")
    patient.psql("update pg_database set datcollversion = '1.0' where datname = 'collated'")
    mend = doctor.remedy("wrong", "built with version 1.0 of its collation")
    patient.cluster.psql("collated", *[f"{one};" for one in mend.split(";") if one.strip()])
    doctor.has_no_finding("collation")
