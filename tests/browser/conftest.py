"""Fixtures: one whole stack, one Chromium, and for each test a page that must report no problem.

A test fails if its page logs an error or warning, throws an exception, violates its content security policy, or sends a
request to another host. A failed test leaves a screenshot in var/browser.
"""

import os
import pathlib
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

import support

SCREENSHOTS = support.REPOSITORY / "var" / "browser"

# Root has no sandbox, a container no GPU; the other options prevent Chromium from contacting other hosts.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
).split()
# A foreign host name that resolves to this machine.
FLAGS.append("--host-resolver-rules=MAP rebound.example 127.0.0.1")

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """nginx, the server and PostgreSQL with the passengers of the seed and two more resources, shared by all tests."""
    descriptions = tmp_path_factory.mktemp("resources")
    for folder in (pathlib.Path(__file__).parent / "resources", support.REPOSITORY / "tests" / "corpus"):
        for description in folder.glob("*.toml"):
            shutil.copy(description, descriptions)
    with support.running_stack(RATE_LIMIT="off", RESOURCES_DIR=str(descriptions)) as one:
        yield one


@pytest.fixture(scope="session")
def chromium():
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "chromium is missing: scripts/install-packages chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.stash.setdefault(OUTCOMES, {})[report.when] = report
    return report


OUTCOMES = pytest.StashKey()


@pytest.fixture
def open_page(stack, chromium, request):
    """open_page(path, **options): a page in its own context, with the options of Playwright's new_context."""
    opened = []

    def start(path="/", **options):
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", **options}
        context = chromium.new_context(base_url=f"http://localhost:{stack.port}", **options)
        context.set_default_timeout(support.DEADLINE_SECONDS * 1000)
        page = context.new_page()
        complaints = []
        # Chromium reports failed requests and each answer with a status of 400 or more as an error; tests of such answers expect that.
        page.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if is_foreign(asked.url, stack.port) else None)
        opened.append((context, page, complaints))
        page.goto(path)
        return page

    yield start
    call = request.node.stash.get(OUTCOMES, {}).get("call")
    for number, (context, page, complaints) in enumerate(opened):
        if call is not None and call.failed:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"failed-{request.node.name}-{number}.png", full_page=True)
        context.close()
        assert complaints == []


def is_complaint(message):
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


def is_foreign(url, port):
    return not url.startswith((f"http://localhost:{port}/", "data:", "blob:"))


expect.set_options(timeout=support.DEADLINE_SECONDS * 1000)
