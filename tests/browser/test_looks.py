"""Accessibility and layout of the pages: no page is wider than the window; screenshots in var/browser for review."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from conftest import DESKTOP, PHONE, SCREENSHOTS

# The rules of the Web Content Accessibility Guidelines for the levels A and AA.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def form_with_faults(page):
    page.get_by_role("button", name="New passenger").click()
    page.get_by_role("button", name="Create passenger").click()
    expect(page.locator("#name-error")).not_to_be_empty()


def passenger(page):
    page.locator("#rows").get_by_role("button").nth(2).click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Edit")).to_be_visible()


def row(page):
    page.locator("#rows").get_by_role("button").nth(2).click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Edit")).to_be_visible()


def row_form_with_faults(page):
    page.get_by_role("button", name="New vessel").click()
    page.get_by_role("button", name="Create vessel").click()
    expect(page.locator("#name-error")).not_to_be_empty()


VIEWS = {
    "list": ("/", lambda page: None),
    "sorted": ("/?sort=age.desc&class=1&q=a", lambda page: None),
    "passenger": ("/", passenger),
    "form": ("/", form_with_faults),
    "resource": ("/resources/passengers", lambda page: None),
    "row": ("/resources/passengers", row),
    "row-form": ("/resources/vessels", row_form_with_faults),
    "problem": ("/docs/problems/invalid-fields", lambda page: None),
    "problems": ("/docs/problems", lambda page: None),
}


@pytest.mark.parametrize("scheme", ("light", "dark"))
@pytest.mark.parametrize("size", (DESKTOP, PHONE), ids=("desktop", "phone"))
@pytest.mark.parametrize("name", VIEWS)
def test_pages_are_accessible(open_page, name, size, scheme):
    path, act = VIEWS[name]
    page = open_page(path, viewport=size, color_scheme=scheme)
    if path.startswith("/docs"):
        expect(page.get_by_role("heading", level=1)).to_be_visible()
    else:
        pictures = ("#groups svg",) if path == "/resources/passengers" else ("#survival svg", "#air svg")
        for picture in () if path == "/resources/vessels" else pictures:
            expect(page.locator(picture)).to_be_visible()
        expect(page.locator("#table")).to_have_attribute("aria-busy", "false")
    act(page)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}-{'phone' if size is PHONE else 'desktop'}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    # The debugger injects axe into the page, which the content security policy does not prevent.
    found = Axe().run(page, options=RULES)
    assert found.violations_count == 0, found.generate_report()
