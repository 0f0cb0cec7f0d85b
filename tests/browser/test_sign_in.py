"""With AUTH=on a page requires a token, shows its scopes, and keeps typed input when the token expires."""

import subprocess

import pytest
from playwright.sync_api import expect

import support

PROGRAM = str(support.BINARY_DIR / "pycrudapi")


@pytest.fixture(scope="module")
def stack():
    with support.running_stack(RATE_LIMIT="off", AUTH="on") as one:
        yield one


def token_command(stack, *arguments):
    said = subprocess.run(
        [PROGRAM, "token", *arguments], env=stack.environment, check=True, capture_output=True, text=True, timeout=60
    )
    return said.stdout.strip()


def make_token(stack, scope):
    return token_command(stack, "create", "--name", "browser", "--scope", scope)


def revoke_all(stack):
    for line in token_command(stack, "list").splitlines()[1:]:
        token_command(stack, "revoke", line.split()[0])


def sign_in(page, token, button=None):
    (button or page.get_by_role("banner").get_by_role("button", name="Sign in")).click()
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Token").fill(token)
    dialog.get_by_role("button", name="Sign in").click()
    return dialog


def rows(page):
    return page.locator("#rows tr")


@pytest.mark.parametrize("path", ["/", "/resources/passengers"])
def test_without_a_token_nothing_is_shown_and_a_good_one_shows_it(open_page, stack, path):
    page = open_page(path)
    expect(page.locator("#problem")).to_contain_text("Credentials are missing")
    expect(rows(page)).to_have_count(0)
    expect(page.get_by_role("button", name="New passenger")).to_have_count(0)
    dialog = sign_in(page, "pycrudapi_wrong", page.locator("#problem").get_by_role("button", name="Sign in"))
    expect(dialog.get_by_role("alert")).to_contain_text("The token is unknown")
    dialog.get_by_role("button", name="Close").click()
    sign_in(page, make_token(stack, "admin"))
    expect(rows(page)).not_to_have_count(0)
    expect(page.get_by_role("button", name="New passenger")).to_be_visible()
    expect(page.get_by_role("button", name="Import…")).to_be_visible()
    # The token is kept in the tab, and removed by a click.
    page.reload()
    expect(rows(page)).not_to_have_count(0)
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#problem")).to_contain_text("Credentials are missing")
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


@pytest.mark.parametrize("path", ["/", "/resources/passengers"])
def test_what_the_scopes_do_not_allow_is_not_offered(open_page, stack, path):
    page = open_page(path)
    sign_in(page, make_token(stack, "*:read"))
    expect(rows(page)).not_to_have_count(0)
    for name in ["New passenger", "Import…"]:
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    rows(page).first.get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="History")).to_be_visible()
    for name in ["Edit", "Delete…"]:
        expect(dialog.get_by_role("button", name=name)).to_have_count(0)


def test_a_token_that_ends_in_the_middle_of_an_edit_loses_nothing_that_was_typed(open_page, stack):
    page = open_page()
    sign_in(page, make_token(stack, "passengers:*"))
    page.get_by_role("button", name="New passenger").click()
    dialog = page.locator("#passenger")
    dialog.get_by_label("Name").fill("Typed, Mrs. Before It Ended")
    dialog.get_by_label("Class").select_option("2")
    dialog.get_by_label("Sex").select_option("female")
    dialog.get_by_label("Survived").select_option("true")
    for label in ["Fare", "Siblings or spouses", "Parents or children"]:
        dialog.get_by_label(label).fill("0")
    revoke_all(stack)
    save = dialog.get_by_role("button", name="Create")
    support.until(
        lambda: stack.request("GET", "/v1/principal", headers=bearer(page)).status == 401, "the token is refused"
    )
    save.click()
    expect(dialog.get_by_role("alert")).to_contain_text("The token was revoked")
    sign_in(page, make_token(stack, "passengers:*"), dialog.get_by_role("button", name="Sign in"))
    expect(page.get_by_role("dialog", name="Sign in")).to_have_count(0)
    expect(dialog.get_by_label("Name")).to_have_value("Typed, Mrs. Before It Ended")
    save.click()
    expect(page.locator("#status")).to_contain_text("Typed, Mrs. Before It Ended was created")


def bearer(page):
    token = page.evaluate("sessionStorage.getItem('token')")
    return {"authorization": f"Bearer {token}"}


def test_swagger_ui_sends_the_token_that_it_is_given(open_page, stack):
    page = open_page("/docs")
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux")
    dialog.locator("input").fill(make_token(stack, "passengers:read"))
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close", exact=True).last.click()
    for identifier, status in [("getPrincipal", "200"), ("listPassengers", "200"), ("listSteps", "403")]:
        block = page.locator(f"[id$='-{identifier}']")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Execute").click()
        shown = block.locator(".live-responses-table td.response-col_status:not(.col_header)").first
        expect(shown).to_contain_text(status)
