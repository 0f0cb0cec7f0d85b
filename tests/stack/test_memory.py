"""Hundreds of slow readers and unfinished bodies at once, inside the memory that a container has."""

import contextlib

import pytest

import crowd
from support import PASSENGER


@pytest.fixture(scope="module")
def stack():
    with contextlib.ExitStack() as opened:
        try:
            one = opened.enter_context(crowd.stack_in_a_container())
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        yield one


@pytest.mark.parametrize("addresses", [1, 200])
def test_nothing_is_killed_and_others_are_answered(stack, addresses):
    before = (stack.server_pid(), stack.nginx_pid())
    for _ in range(3):
        with crowd.attack(stack.port, addresses) as opened:
            for _ in range(20):
                created = stack.request("POST", "/v1/passengers", PASSENGER)
                assert created.status == 201, created
                assert stack.request("GET", created.headers["location"]).status == 200
                page = stack.request("GET", "/v1/passengers?limit=10")
                assert page.status == 200 and len(page.json()) == 10, page
                # The bodies go on, as far as they are taken.
                for one in opened:
                    with contextlib.suppress(OSError):
                        one.send(b" ")
    print(f"at most {crowd.most_used(stack.group)} MiB in use")
    assert crowd.killed(stack.group) == 0
    assert (stack.server_pid(), stack.nginx_pid()) == before, stack.process.output[-3000:]
