"""A run of the benchmark: its database, its interleaved measurements, and the results so far."""

import contextlib
import os
import random
import shutil
import subprocess

import contestants
import load
import needs
from contestants import NGINX, OURS, PEERS

SEED = 1
SMALL_ROWS = 1000
PAGE_ROWS = 100
PAGE_FAR = 10_000
WARM_UP_SECONDS = 1
OTHER = "the other build"


class Bench:
    """The settings of a run, its database, and its results: phase, contestant, list of rounds."""

    def __init__(self, options, cluster, binary):
        self.options = options
        self.cluster = cluster
        self.binary = binary
        self.results = {}
        self._warm = set()
        self.notes = {}
        self.keys = f"{needs.VAR}/keys"
        self.few_keys = f"{needs.VAR}/few-keys"
        self.csv = f"{needs.VAR}/passengers-{options.rows}.csv"

    # --- the database -----------------------------------------------------------------------------------------

    def load(self):
        rows = self.options.rows
        with open(self.csv, "wb") as file:
            subprocess.run([self.binary, "generate", "--rows", str(rows), "--seed", str(SEED)], stdout=file, check=True)
        with open(self.csv, encoding="utf-8") as file:
            next(file)
            every = [line[:36] for line in file]
        shuffled = write_shuffled(every, self.keys)
        write_shuffled(every[:SMALL_ROWS], self.few_keys)
        self.cluster.create("empty")
        self.server("migrate", "empty")
        for database in ("million", "thousand", "list"):
            self.cluster.create(database, "empty")
        self.server("import", "million", self.csv)
        small = f"{needs.VAR}/small.csv"
        with open(self.csv, "rb") as file, open(small, "wb") as few:
            few.writelines(line for _, line in zip(range(SMALL_ROWS + 1), file))
        self.server("import", "thousand", small)
        self.server("import", "list", os.path.join(needs.ROOT, "data", "passengers.csv"))
        self.load_key_packs(shuffled)
        for database in ("million", "thousand", "list"):
            self.cluster.psql(database, "vacuum (freeze, analyze)")
        self.cluster.psql("million", "checkpoint")
        self.far_key = every[min((PAGE_FAR - 1) * PAGE_ROWS, rows - PAGE_ROWS - 1) - 1]
        self.some_key = every[rows // 2]

    def load_key_packs(self, shuffled):
        """Loads the keys for pgbench into a table, because it cannot read them from a file."""
        per_pack = load.KEYS_PER_PACK
        self.packs = len(shuffled) // per_pack
        path = f"{needs.VAR}/packs.csv"
        with open(path, "w", encoding="ascii") as file:
            for pack in range(self.packs):
                file.write(f"{pack},{','.join(shuffled[pack * per_pack : (pack + 1) * per_pack])}\n")
        columns = ", ".join(f"k{n} uuid not null" for n in range(per_pack))
        self.cluster.psql("million", f"create table bench_keys (pack integer primary key, {columns})")
        self.cluster.psql("million", f"\\copy bench_keys from '{path}' csv")

    def server(self, subcommand, database, *more):
        needs.run([self.binary, subcommand, *more], env=os.environ | {"DATABASE_URL": self.cluster.url(database)})

    # --- measuring --------------------------------------------------------------------------------------------

    def rounds(self, phase, measures, before=None):
        """Runs every measurement once per round, interleaved."""
        table = self.results.setdefault(phase, {name: [] for name in measures})
        for turn in range(self.options.rounds):
            # Alternate rounds are reversed, so that not always the same contestant follows a heavy one.
            order = list(measures.items())[:: 1 if turn % 2 == 0 else -1]
            for name, measure in order:
                if before:
                    before()
                result = measure()
                if result is None:
                    table.pop(name, None)
                    continue
                if result["failed"]:
                    raise RuntimeError(f"{phase}: {name}: {result['failed']} requests failed: {result}")
                table.setdefault(name, []).append(result)
                print(f"  {phase:28} {turn + 1}  {name:34} {result['per_second']:12,.0f}/s", flush=True)

    def wrk(self, running, script, connections, argument=None):
        argument = self.keys if argument is None else argument
        if (running.port, script) not in self._warm:
            # The pool is filled, statements are prepared, and interpreters compile hot code.
            self._warm.add((running.port, script))
            load.wrk(running, self.cluster.pid, script, connections, WARM_UP_SECONDS, argument)
        return load.wrk(running, self.cluster.pid, script, connections, self.options.seconds, argument)

    @contextlib.contextmanager
    def all_contestants(self, database, peers=True, nginx=True):
        """Starts all contestants on a database; an idle one uses no resources."""
        url = self.cluster.url(database)
        with contextlib.ExitStack() as stack:
            running = {OURS: stack.enter_context(contestants.ours(self.binary, url))}
            if self.options.against:
                running[OTHER] = stack.enter_context(contestants.ours(self.options.against, url))
            if nginx:
                folder = stack.enter_context(self.folder())
                running[NGINX] = stack.enter_context(contestants.behind_nginx(self.binary, url, f"{folder}/run"))
            if peers and not self.options.no_peers:
                for name in PEERS:
                    running[name] = stack.enter_context(contestants.peer(name, url))
            yield running

    @contextlib.contextmanager
    def folder(self):
        path = f"{self.cluster.folder}-nginx"
        os.makedirs(path, mode=0o711)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def checkpoint(self):
        self.cluster.psql("million", "checkpoint")

    def pgbench(self, statement, clients, over_socket=False):
        seconds = self.options.seconds
        return load.pgbench(self.cluster, "million", statement, clients, seconds, self.packs, over_socket)


def write_shuffled(keys, path):
    """Writes the keys in random order, so that load generators read them sequentially, without cache misses that would count as server time."""
    shuffled = random.Random(SEED).sample(keys, len(keys))
    with open(path, "w", encoding="ascii") as file:
        file.writelines(f"{key}\n" for key in shuffled)
    return shuffled
