"""Connections between nginx and servers, servers and PostgreSQL, servers and Redis, that are cut, slow, silent or cut midway."""

from faults import SERVERS, fault

# {what people call it: how the names of its links begin}
BETWEEN = {"server and PostgreSQL": "postgres", "nginx and a server": "server-", "server and Redis": "redis"}


def _breaks(between, word, mode, seconds, number=None):
    @fault(f"{between}: {word}", SERVERS)
    async def _(world, dice):
        names = world.links.names(BETWEEN[between])
        # The standby's, too: it is the primary after a failover.
        names = names + world.links.names("standby") if between == "server and PostgreSQL" else [dice.choice(names)]
        try:
            for name in names:
                await world.links.set(name, mode, number(dice) if number else None)
            yield dice.uniform(*seconds) if seconds else None
        finally:
            for name in names:
                await world.links.set(name, "pass")


for _between in BETWEEN:
    _breaks(_between, "cut", "cut", None)
    _breaks(_between, "refused", "refuse", (0.2, 1.5))
    _breaks(_between, "delayed", "delay", (0.5, 2.0), lambda dice: round(dice.uniform(0.02, 0.3), 3))
    _breaks(_between, "silent", "hole", (0.3, 3.0))
    _breaks(_between, "reset after n bytes", "reset", (0.3, 1.5), lambda dice: dice.randrange(1, 3000))
