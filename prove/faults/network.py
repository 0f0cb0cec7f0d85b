"""Network faults between nginx and servers, servers and PostgreSQL, servers and Redis: cut, refused, delayed, stalled, reset."""

from faults import SCALED, fault

# {name in the report: prefix of the names of its links}
BETWEEN = {"server and PostgreSQL": "postgres", "nginx and a server": "server-", "server and Redis": "redis"}


def _breaks(between, word, mode, seconds, number=None):
    @fault(f"{between}: {word}", SCALED)
    async def _(deployment, rng):
        names = deployment.links.names(BETWEEN[between])
        # The link of the standby, too, because it is the primary after a failover.
        names = names + deployment.links.names("standby") if between == "server and PostgreSQL" else [rng.choice(names)]
        try:
            for name in names:
                await deployment.links.set(name, mode, number(rng) if number else None)
            yield rng.uniform(*seconds) if seconds else None
        finally:
            for name in names:
                await deployment.links.set(name, "pass")


for _between in BETWEEN:
    _breaks(_between, "cut", "cut", None)
    _breaks(_between, "refused", "refuse", (0.2, 1.5))
    _breaks(_between, "delayed", "delay", (0.5, 2.0), lambda rng: round(rng.uniform(0.02, 0.3), 3))
    _breaks(_between, "stalled", "stall", (0.3, 3.0))
    _breaks(_between, "reset after n bytes", "reset", (0.3, 1.5), lambda rng: rng.randrange(1, 3000))
