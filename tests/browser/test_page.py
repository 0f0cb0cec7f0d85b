"""The page of the passengers: search, sort and pagination; show, create, edit and delete a passenger."""

import re

import pytest
from playwright.sync_api import expect

from support import PASSENGER


def rows(page):
    return page.locator("#rows tr[data-uuid]")


def status(page):
    return page.get_by_role("status")


def filter_by(page, label):
    return page.get_by_role("search").get_by_label(label)


def column(page, number):
    return [cell.strip() for cell in page.locator(f"#rows tr > :nth-child({number})").all_inner_texts()]


@pytest.fixture
def stored(stack):
    """stored(**fields): a passenger that only this test uses, deleted at its end."""
    made = []

    def store(**fields):
        answer = stack.request("POST", "/v1/passengers", {**PASSENGER, **fields})
        assert answer.status == 201, answer
        made.append(answer.json()["uuid"])
        return made[-1]

    yield store
    for uuid in made:
        stack.request("DELETE", f"/v1/passengers/{uuid}")


def open_passenger(page, name):
    page.get_by_label("Name", exact=True).fill(name)
    page.locator("#rows").get_by_role("button", name=name).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    return page.get_by_role("dialog")


def test_the_first_passengers_and_their_number_are_there_at_once(open_page):
    page = open_page()
    expect(rows(page)).to_have_count(50)
    expect(status(page)).to_have_text(re.compile(r"^1–50 of 8\d\d$"))
    expect(rows(page).first).to_contain_text("Abbing, Mr. Anthony")
    expect(page.get_by_role("heading", level=1)).to_have_text("Passengers")


def test_a_name_is_found_while_it_is_typed(open_page):
    page = open_page()
    page.get_by_label("Name", exact=True).press_sequentially("ALLISON")
    expect(rows(page)).to_have_count(3)
    expect(status(page)).to_have_text("1–3 of 3")
    assert all("Allison" in name for name in column(page, 1))
    expect(page).to_have_url(re.compile(r"\?q=ALLISON$"))


def test_a_pattern_is_searched_for_literally(open_page, stored):
    stored(name='100%_sure* \\ (really), "quoted"')
    page = open_page()
    for part in ("%_", "0%", "*", "\\ (really)", '), "quoted"'):
        page.get_by_label("Name", exact=True).fill(part)
        expect(rows(page)).to_have_count(1)
        expect(rows(page).first).to_contain_text("100%_sure*")
        page.get_by_role("button", name="Clear").click()
        expect(rows(page)).to_have_count(50)


def test_filters_narrow_the_list_and_can_be_cleared(open_page):
    page = open_page()
    expect(rows(page)).to_have_count(50)
    filter_by(page, "Class").select_option("1st")
    filter_by(page, "Sex").select_option("Female")
    filter_by(page, "Survived").select_option("No")
    filter_by(page, "Oldest age").fill("30")
    expect(rows(page)).to_have_count(2)
    assert column(page, 2) == ["1", "1"] and set(column(page, 8)) == {"no"}
    page.get_by_role("button", name="Clear").click()
    expect(rows(page)).to_have_count(50)
    expect(filter_by(page, "Class")).to_have_value("")
    expect(filter_by(page, "Oldest age")).to_have_value("")


def test_a_filter_without_matches_shows_a_message(open_page):
    page = open_page()
    page.get_by_label("Name", exact=True).fill("nobody is called this")
    expect(page.locator("#rows")).to_contain_text("No matching passengers")
    expect(page.locator("#survival")).to_contain_text("No matching passengers")


def test_a_column_sorts_up_then_down_then_not(open_page):
    page = open_page()
    head = page.locator("th[data-column=age]")
    up, down = "ascending", "descending"
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", up)
    expect(rows(page).first).to_contain_text("0.42")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", down)
    expect(rows(page).first).to_contain_text("80")
    assert [float(age) for age in column(page, 4)] == sorted((float(age) for age in column(page, 4)), reverse=True)
    head.get_by_role("button").click()
    expect(head).not_to_have_attribute("aria-sort", re.compile("."))
    expect(rows(page).first).to_contain_text("Abbing, Mr. Anthony")


def test_pages_lead_forward_and_back_and_so_does_the_browser(open_page):
    page = open_page()
    expect(status(page)).to_have_text(re.compile("^1–50 of"))
    first = column(page, 1)
    page.get_by_role("button", name="Next").click()
    expect(status(page)).to_have_text(re.compile("^51–100 of"))
    second = column(page, 1)
    assert not set(first) & set(second)
    page.get_by_role("button", name="Next").click()
    expect(status(page)).to_have_text(re.compile("^101–150 of"))
    page.get_by_role("button", name="Previous").click()
    expect(status(page)).to_have_text(re.compile("^51–100 of"))
    assert column(page, 1) == second
    page.go_back()
    page.go_back()
    page.go_back()
    expect(status(page)).to_have_text(re.compile("^1–50 of"))
    assert column(page, 1) == first
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()


def test_the_address_keeps_the_view(open_page):
    page = open_page("/?class=2&sort=fare.desc&min=60")
    expect(filter_by(page, "Class")).to_have_value("2")
    expect(filter_by(page, "Youngest age")).to_have_value("60")
    expect(page.locator("th[data-column=fare]")).to_have_attribute("aria-sort", "descending")
    expect(rows(page).first).to_be_visible()
    assert set(column(page, 2)) == {"2"}


def test_a_passenger_is_created_once_each_error_is_corrected(open_page, stack):
    page = open_page()
    page.get_by_role("button", name="New passenger").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_be_focused()
    dialog.get_by_label("Age").fill("200")
    dialog.get_by_role("button", name="Create passenger").click()
    expect(dialog.get_by_role("alert")).to_contain_text("8 fields are invalid")
    expect(dialog.get_by_label("Age")).to_have_attribute("aria-invalid", "true")
    expect(dialog.locator("#age-error")).to_have_text("must be between 0 and 130, or null")
    expect(dialog.get_by_label("Name")).to_be_focused()

    dialog.get_by_label("Name").fill("Page, Miss. New")
    dialog.get_by_label("Class").select_option("2nd")
    dialog.get_by_label("Sex").select_option("Female")
    dialog.get_by_label("Survived").select_option("Yes")
    dialog.get_by_label("Fare").fill("12.5")
    dialog.get_by_label("Siblings or spouses").fill("0")
    dialog.get_by_label("Parents or children").fill("1")
    dialog.get_by_role("button", name="Create passenger").click()
    expect(dialog.locator("#age-error")).to_have_text("must be between 0 and 130, or null")
    expect(dialog.locator("#name-error")).to_be_empty()
    expect(dialog.get_by_label("Age")).to_be_focused()

    dialog.get_by_label("Age").fill("")
    dialog.get_by_role("button", name="Create passenger").click()
    expect(dialog).to_be_hidden()
    expect(status(page)).to_contain_text("Page, Miss. New was created")
    found = stack.request("GET", "/v1/passengers?name=eq.Page,%20Miss.%20New").json()
    assert [(one["age"], one["fare"], one["passengerClass"]) for one in found] == [(None, 12.5, 2)]
    stack.request("DELETE", f"/v1/passengers/{found[0]['uuid']}")


def test_a_passenger_is_edited(open_page, stack, stored):
    uuid = stored(name="Page, Mr. Before", age=None)
    page = open_page()
    dialog = open_passenger(page, "Page, Mr. Before")
    expect(dialog).to_contain_text("unknown")
    dialog.get_by_role("button", name="Edit").click()
    dialog.get_by_label("Name").fill("Page, Mr. After")
    dialog.get_by_label("Age").fill("41.5")
    dialog.get_by_role("button", name="Save changes").click()
    expect(dialog.get_by_role("heading")).to_have_text("Page, Mr. After")
    expect(dialog).to_contain_text("41.5")
    dialog.get_by_role("button", name="Close").click()
    assert stack.request("GET", f"/v1/passengers/{uuid}").json()["name"] == "Page, Mr. After"


def test_a_change_by_somebody_else_is_not_overwritten(open_page, stack, stored):
    uuid = stored(name="Page, Mr. Shared")
    page = open_page(f"/#{uuid}")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Edit").click()
    changed = stack.request("PUT", f"/v1/passengers/{uuid}", {**PASSENGER, "name": "Page, Mr. Theirs"})
    assert changed.status == 200
    dialog.get_by_label("Name").fill("Page, Mr. Mine")
    dialog.get_by_role("button", name="Save changes").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    assert stack.request("GET", f"/v1/passengers/{uuid}").json()["name"] == "Page, Mr. Theirs"
    dialog.get_by_role("button", name="Show the current version").click()
    expect(dialog.get_by_role("heading")).to_have_text("Page, Mr. Theirs")


def test_a_passenger_is_deleted_only_after_a_yes(open_page, stack, stored):
    uuid = stored(name="Page, Mr. Doomed")
    page = open_page()
    dialog = open_passenger(page, "Page, Mr. Doomed")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("button", name="Keep")).to_be_focused()
    dialog.get_by_role("button", name="Keep").click()
    expect(dialog.get_by_role("heading")).to_have_text("Page, Mr. Doomed")
    assert stack.request("GET", f"/v1/passengers/{uuid}").status == 200
    dialog.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete passenger").click()
    expect(dialog.get_by_role("heading")).to_have_text("Page, Mr. Doomed was deleted")
    dialog.get_by_role("button", name="Close", exact=True).last.click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#rows")).to_contain_text("No matching passengers")
    assert stack.request("GET", f"/v1/passengers/{uuid}").status == 404


def test_a_passenger_is_brought_back_and_so_is_what_was_before_a_change(open_page, stack, stored):
    uuid = stored(name="Page, Mr. Past")
    changed = stack.request("PUT", f"/v1/passengers/{uuid}", {**PASSENGER, "name": "Page, Mr. Past", "age": 61})
    assert changed.status == 200
    page = open_page()
    dialog = open_passenger(page, "Page, Mr. Past")
    dialog.get_by_role("button", name="History").click()
    expect(dialog.get_by_role("heading")).to_have_text("History of Page, Mr. Past")
    expect(dialog.locator("ol > li")).to_have_count(2)
    expect(dialog.locator("ol > li").first).to_contain_text("→ 61")
    dialog.get_by_role("button", name="Restore previous version").click()
    expect(dialog.get_by_role("heading")).to_have_text("Page, Mr. Past")
    assert stack.request("GET", f"/v1/passengers/{uuid}").json()["age"] == PASSENGER["age"]
    dialog.get_by_role("button", name="Delete…").click()
    dialog.get_by_role("button", name="Delete passenger").click()
    dialog.get_by_role("button", name="Restore").click()
    expect(dialog.get_by_role("heading")).to_have_text("Page, Mr. Past")
    assert stack.request("GET", f"/v1/passengers/{uuid}").status == 200


def test_everything_can_be_done_by_keyboard(open_page, stored):
    stored(name="Page, Mrs. Keyboard")
    page = open_page()
    expect(rows(page)).to_have_count(50)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the passengers")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="New passenger")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Import…")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("mrs. keyboard")
    expect(rows(page)).to_have_count(1)
    opener = page.locator("#rows").get_by_role("button")
    for _ in range(20):
        page.keyboard.press("Tab")
        if opener.evaluate("node => node === document.activeElement"):
            break
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name="Edit")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog.get_by_label("Name")).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.type(" Smith")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("heading")).to_have_text("Page, Mrs. Keyboard Smith")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_markup_in_a_name_is_shown_as_text(open_page, stored):
    name = '<img src="x" onerror="alert(1)"> & <b>Bold</b>'
    stored(name=name)
    page = open_page()
    page.get_by_label("Name", exact=True).fill("onerror")
    expect(rows(page)).to_have_count(1)
    assert column(page, 1) == [name]
    page.locator("#rows").get_by_role("button").click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(name)
    assert page.locator("img").count() == 0


def test_an_unreachable_server_is_reported_and_retried(open_page):
    page = open_page()
    expect(rows(page)).to_have_count(50)
    page.route("**/v1/passengers*", lambda route: route.abort())
    filter_by(page, "Sex").select_option("Male")
    alert = page.locator("#problem")
    expect(alert).to_contain_text("The server cannot be reached")
    page.unroute("**/v1/passengers*")
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_be_empty()
    expect(rows(page).first).to_contain_text("male")


def test_the_survival_picture_follows_the_filter(open_page):
    page = open_page()
    picture = page.locator("#survival").get_by_role("img")
    expect(picture).to_have_attribute("aria-label", re.compile("1st class female 97 % of 94.*3rd class male 14 % of 347"))
    filter_by(page, "Class").select_option("3rd")
    expect(picture).not_to_have_attribute("aria-label", re.compile("1st"))


def test_deployments_are_drawn_step_by_step(open_page, stack):
    for step in ("started", "migrated", "ready"):
        query = f"component=web&version=2.0.1&owner=ann&status={step}"
        assert stack.request("POST", f"/v1/steps?{query}").status == 201
    page = open_page()
    picture = page.locator("#deployments").get_by_role("img")
    expect(picture).to_have_attribute("aria-label", re.compile("web 2.0.1 took .* m?s, now ready"))
    expect(page.locator("#deployments .legend")).to_contain_text("migrated")


def test_air_quality_is_drawn_for_the_measure_chosen(open_page):
    page = open_page()
    picture = page.locator("#air").get_by_role("img")
    expect(picture).to_have_attribute("aria-label", re.compile("^NO₂ in µg/m³, 3 Mar to 9 Mar 2025; .*centre"))
    expect(page.locator("#air polyline")).to_have_count(5)
    page.get_by_label("Measure").select_option("CO")
    expect(picture).to_have_attribute("aria-label", re.compile("^CO in mg/m³"))
