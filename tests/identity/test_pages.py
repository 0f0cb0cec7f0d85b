"""Signing in on the pages with the certified OpenID provider, in Chromium."""

import re
import urllib.parse

import pytest
from playwright.sync_api import expect

import support

SCOPE = "openid passengers:read passengers:create passengers:update"


@pytest.fixture
def signing_in(provider, guarded):
    """signing_in(**settings): a provider, and a stack whose pages are its client."""

    def start(settings=None, **of_provider):
        issuer = provider(**of_provider)
        stack = guarded(issuer, AUTH_CLIENT_ID="page", **(settings or {}))
        issuer.settings["REDIRECT_URIS"] = f"http://localhost:{stack.port}/"
        issuer.start()
        support.until(
            lambda: stack.request("GET", "/v1/principal", headers=bearer(issuer.job_token("*:read"))).status == 200,
            "the server has the provider's keys",
        )
        return issuer, stack

    return start


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def banner(page):
    return page.get_by_role("banner")


def at_provider(page, click, name="alice"):
    """Signs in with a name in the opened window, and consents; returns the visited URLs."""
    with page.expect_popup() as opened:
        click()
    window = opened.value
    addresses = []
    window.on("framenavigated", lambda frame: addresses.append(frame.url))
    window.get_by_placeholder("Enter any login").fill(name)
    window.get_by_placeholder("and password").fill("any")
    window.get_by_role("button", name="Sign-in").click()
    with window.expect_event("close"):
        window.get_by_role("button", name="Continue").click()
    return addresses


def sign_in(page, name="alice"):
    return at_provider(page, banner(page).get_by_role("button", name="Sign in").click, name)


def rows(page):
    return page.locator("#rows tr")


@pytest.mark.parametrize("path", ["/", "/resources/passengers"])
def test_somebody_signs_in_and_out_at_the_provider(open_page, signing_in, path):
    issuer, stack = signing_in()
    page = open_page(stack, issuer, path)
    expect(page.locator("#problem")).to_contain_text("Credentials are missing")
    addresses = sign_in(page)
    expect(banner(page)).to_contain_text(f"{issuer.issuer} alice")
    expect(rows(page)).not_to_have_count(0)
    expect(page.get_by_role("button", name="New passenger")).to_be_visible()
    token = page.evaluate("sessionStorage.getItem('token')")
    # The token is in no URL of the service or the provider and in no log; nor is the used code kept.
    assert not any(token in address for address in [page.url, *addresses])
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    asked = next(address for address in addresses if "/?code=" in address)
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(asked).query)["code"][0]
    support.until(lambda: "/?(sign-in)" in stack.process.output, "the answer is in nginx's log")
    assert token not in stack.process.output and code not in stack.process.output
    page.reload()
    expect(rows(page)).not_to_have_count(0)
    with page.expect_popup() as opened:
        page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#problem")).to_contain_text("Credentials are missing")
    assert page.evaluate("sessionStorage.length") == 0
    with opened.value.expect_event("close"):
        opened.value.get_by_role("button", name="Yes, sign me out").click()
    # Also signed out at the provider: the next user must sign in.
    sign_in(page, "bob")
    expect(banner(page)).to_contain_text(f"{issuer.issuer} bob")


def test_what_the_scopes_do_not_allow_is_not_offered(open_page, signing_in):
    issuer, stack = signing_in({"AUTH_CLIENT_SCOPE": "passengers:read"})
    page = open_page(stack, issuer)
    sign_in(page)
    expect(rows(page)).not_to_have_count(0)
    for name in ["New passenger", "Import…"]:
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    rows(page).first.get_by_role("button").click()
    for name in ["Edit", "Delete…"]:
        expect(page.get_by_role("dialog").get_by_role("button", name=name)).to_have_count(0)


def test_a_token_that_expires_in_the_middle_of_an_edit_loses_nothing_that_was_typed(open_page, signing_in, provider):
    issuer, stack = signing_in({"AUTH_LEEWAY": "0s"})
    # A second provider with the same issuer and keys issues tokens that last a second. The token of the page itself must last until the
    # edit begins, however slow the machine is.
    hasty = provider(ISSUER=issuer.issuer, KEYS=issuer.directory / "keys-0.json", ACCESS_TOKEN_SECONDS="1").start()
    expired = hasty.job_token("*:read")
    page = open_page(stack, issuer)
    sign_in(page)
    rows(page).first.get_by_role("button").click()
    dialog = page.locator("#passenger")
    dialog.get_by_role("button", name="Edit").click()
    dialog.get_by_label("Name").fill("Typed, Mrs. Before It Ended")
    support.until(
        lambda: stack.request("GET", "/v1/principal", headers=bearer(expired)).status == 401, "the token has expired"
    )
    page.evaluate("token => sessionStorage.setItem('token', token)", expired)
    save = dialog.get_by_role("button", name="Save changes")
    save.click()
    expect(dialog.get_by_role("alert")).to_contain_text("The token has expired")
    # The session at the provider is still valid, so there is no prompt.
    with page.expect_popup():
        dialog.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog", name="Sign in")).to_have_count(0)
    expect(dialog.get_by_label("Name")).to_have_value("Typed, Mrs. Before It Ended")
    save.click()
    expect(page.locator("#status")).to_contain_text("Typed, Mrs. Before It Ended was saved")


def tampered(page, issuer, stack, change):
    """Clicks Sign in, and returns with a manipulated answer of the provider."""

    def answer(route):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(route.request.url).query))
        given = {"code": "made-up", "state": query["state"], "iss": issuer.issuer, **change}
        kept = {name: value for name, value in given.items() if value is not None}
        location = f"http://localhost:{stack.port}/?{urllib.parse.urlencode(kept)}"
        route.fulfill(status=303, headers={"location": location})

    page.context.route(re.compile(re.escape(issuer.issuer) + "/auth"), answer)
    with page.expect_popup() as opened:
        banner(page).get_by_role("button", name="Sign in").click()
    # The window closes after it has notified the page; until then "Open the window again" reuses it.
    if not opened.value.is_closed():
        opened.value.wait_for_event("close")
    return page.get_by_role("dialog", name="Sign in")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"iss": "https://id.example"}, "The response is from another identity provider"),
        ({"iss": None}, "The response is from another identity provider"),
        ({"error": "access_denied", "error_description": "end-user aborted interaction"}, "End-user aborted interaction"),
        ({"code": None}, "The identity provider sent no code"),
        ({}, "The identity provider refused"),
    ],
)  # fmt: skip
def test_an_invalid_answer_signs_nobody_in_and_shows_the_reason(open_page, signing_in, change, told):
    issuer, stack = signing_in()
    page = open_page(stack, issuer)
    dialog = tampered(page, issuer, stack, change)
    expect(dialog.get_by_role("alert")).to_contain_text(told)
    assert page.evaluate("sessionStorage.length") == 0


def test_an_answer_with_another_state_is_ignored(open_page, signing_in):
    issuer, stack = signing_in()
    page = open_page(stack, issuer)
    exchanged = []
    page.on("request", lambda request: exchanged.append(request.url) if request.url.endswith("/token") else None)
    dialog = tampered(page, issuer, stack, {"state": "another"})
    expect(dialog).to_contain_text("Continue in the window")
    page.context.unroute_all()
    # The same attempt continues in a reopened window.
    at_provider(page, dialog.get_by_role("button", name="Open the window again").click)
    expect(banner(page)).to_contain_text(f"{issuer.issuer} alice")
    assert len(exchanged) == 1


def test_an_id_token_for_another_sign_in_is_refused(open_page, signing_in):
    issuer, stack = signing_in()
    page = open_page(stack, issuer)

    def with_another_nonce(route):
        address, changed = route.request.url, "nonce=another"
        route.continue_(url=re.sub(r"nonce=[^&]+", changed, address))

    page.context.route(re.compile(re.escape(issuer.issuer) + r"/auth\?"), with_another_nonce)
    sign_in(page)
    dialog = page.get_by_role("dialog", name="Sign in")
    expect(dialog.get_by_role("alert")).to_contain_text("The ID token is invalid")
    assert page.evaluate("sessionStorage.length") == 0


def test_swagger_ui_signs_somebody_in_and_sends_the_token(open_page, signing_in):
    issuer, stack = signing_in({"AUTH_CLIENT_SCOPE": "passengers:read"})
    page = open_page(stack, issuer, "/docs")
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux")
    expect(dialog).to_contain_text("authorization_code with PKCE")
    at_provider(page, dialog.locator("button.authorize", has_text="Authorize").last.click)
    expect(dialog.get_by_text("Logout")).to_be_visible()
    dialog.get_by_role("button", name="Close", exact=True).last.click()
    for identifier, status in [("listPassengers", "200"), ("listSteps", "403")]:
        block = page.locator(f"[id$='-{identifier}']")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Execute").click()
        shown = block.locator(".live-responses-table td.response-col_status:not(.col_header)").first
        expect(shown).to_contain_text(status)


def test_pages_may_ask_the_provider_only_where_they_sign_in_there(provider, guarded):
    issuer = provider().start()
    for settings, allowed in [({"AUTH_CLIENT_ID": "page"}, True), ({}, False), ({"AUTH_CLIENT_ID": "page", "AUTH": "off"}, False)]:
        stack = guarded(issuer, **settings)
        for path in ["/", "/resources/passengers", "/docs"]:
            policy = stack.request("GET", path, headers={"accept": "text/html"}).headers["content-security-policy"]
            assert (issuer.issuer in policy) == allowed, (settings, path, policy)
        document = stack.request("GET", "/openapi.json").json()
        assert ("signIn" in document["components"]["securitySchemes"]) == allowed
        shown = stack.request("GET", "/v1/principal").json().get("signIn")
        assert (shown is not None) == allowed, shown
        assert stack.request("GET", "/?code=a&state=b", headers={"accept": "text/html"}).status == (200 if allowed else 400)
