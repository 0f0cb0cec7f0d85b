"""The documentation in a real browser: Swagger UI works through nginx, and the types of problems link to their pages."""

from playwright.sync_api import expect

from conftest import PHONE, SCREENSHOTS


def operation(page, identifier):
    """Opens one operation of Swagger UI."""
    block = page.locator(f"[id$='-{identifier}']")
    block.locator(".opblock-summary-control").click()
    return block


def status_of(block):
    return block.locator(".live-responses-table td.response-col_status:not(.col_header)").first


def test_an_operation_without_parameters_can_be_executed(open_page):
    page = open_page("/docs")
    block = operation(page, "getHello")
    block.get_by_role("button", name="Execute").click()
    expect(status_of(block)).to_contain_text("200")
    expect(block.locator(".live-responses-table")).to_contain_text('"message"')


def test_a_passenger_can_be_created_from_the_example(open_page, stack):
    page = open_page("/docs")
    block = operation(page, "createPassenger")
    block.get_by_role("button", name="Execute").click()
    expect(status_of(block)).to_contain_text("201")
    expect(block.locator(".live-responses-table")).to_contain_text("Post-Test-Name")


def test_a_list_is_asked_for_without_any_filter_unless_one_is_typed(open_page):
    page = open_page("/docs")
    for identifier in ("listPassengers", "listSteps", "listAirQuality"):
        block = operation(page, identifier)
        block.get_by_role("button", name="Execute").click()
        expect(status_of(block)).to_contain_text("200")
        block.locator(".opblock-summary-control").click()


def test_every_operation_is_on_the_page(open_page, stack):
    page = open_page("/docs")
    paths = stack.request("GET", "/openapi.json").json()["paths"]
    expect(page.locator(".opblock")).to_have_count(sum(len(item) for item in paths.values()))


def test_the_page_of_a_problem_can_be_reached_from_the_list(open_page):
    page = open_page("/docs/problems", viewport=PHONE)
    page.get_by_role("link", name="too-many-requests").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Too Many Requests")
    expect(page.locator("main")).to_contain_text("Retry-After")


def test_the_pages_look_as_they_should(open_page):
    """Takes screenshots for review; fails if a page is wider than the window."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name, path in (("docs", "/docs"), ("problems", "/docs/problems"), ("problem", "/docs/problems/invalid-fields")):
        for scheme in ("light", "dark"):
            page = open_page(path, color_scheme=scheme)
            if name == "docs":
                expect(page.locator(".opblock").first).to_be_visible()
            page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}.png")
        page = open_page(path, viewport=PHONE)
        if name == "docs":
            expect(page.locator(".opblock").first).to_be_visible()
        page.screenshot(path=SCREENSHOTS / f"{name}-phone.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
