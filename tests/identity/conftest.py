"""Fixtures: providers, stacks that accept their tokens, and pages of these stacks in Chromium."""

import os
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

import support
from provider import AUDIENCE, Provider

SCREENSHOTS = support.REPOSITORY / "var" / "browser"


@pytest.fixture
def directory():
    with support.short_directory() as path:
        yield path


@pytest.fixture
def provider(directory):
    """provider(**settings): a provider, not started."""
    made = []

    def make(**settings):
        place = directory / f"provider-{len(made)}"
        place.mkdir()
        made.append(Provider(place, **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def guarded(directory):
    """guarded(provider, **settings): a stack that requires tokens of the provider."""
    made = []

    def start(provider, **settings):
        place = directory / f"stack-{len(made)}"
        place.mkdir()
        place.chmod(0o755)
        issuer = {"AUTH": "on", "AUTH_ISSUER": provider.issuer, "AUTH_AUDIENCE": AUDIENCE, "AUTH_JWKS_REFRESH": "1s"}
        # Clients that send requests continuously use one address.
        one = support.Stack(place, **{**issuer, "RATE_LIMIT": "off", **settings})
        made.append(one)
        return one.start()

    yield start
    for one in made:
        one.destroy()
        # pytest shows it if the test failed.
        print(f"--- what the stack on port {one.port} said\n{one.process.output[-6000:]}")


@pytest.fixture(scope="session")
def chromium():
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert program, "chromium is missing: scripts/install-packages chromium"
    with sync_playwright() as playwright:
        # Root has no sandbox, a container no GPU; the other options prevent Chromium from contacting other hosts.
        flags = "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --no-first-run"
        browser = playwright.chromium.launch(executable_path=program, args=flags.split())
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, request):
    """open_page(stack, provider, path): a page that may contact only these two, and must report no problem."""
    opened = []

    def start(stack, issuer, path="/"):
        context = chromium.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        context.set_default_timeout(support.DEADLINE_SECONDS * 1000)
        complaints = []
        own = (f"http://localhost:{stack.port}/", f"{issuer.issuer}/", "data:", "blob:")
        # External resources that the provider's pages request.
        context.route("https://**", lambda route: route.abort())
        context.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        page = context.new_page()
        page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(own) else None)
        opened.append((context, page, complaints))
        page.goto(f"http://localhost:{stack.port}{path}")
        return page

    yield start
    for number, (context, page, complaints) in enumerate(opened):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{request.node.name.replace('/', '-')}-{number}.png")
        context.close()
        assert complaints == []


def is_complaint(message):
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


expect.set_options(timeout=support.DEADLINE_SECONDS * 1000)
