"""The page in a browser: what is clicked, typed and taken back.

Waits are `expect`s: the page's policy forbids the evaluation of strings that playwright's wait_for_function needs.
"""

import pytest
from playwright.sync_api import expect

from tests.browser import needs_chromium, open_page
from tests.trainer.demo.conftest import MARKUP

pytestmark = needs_chromium


@pytest.fixture
def page(address):
    with open_page(address) as watched:
        watched.page.wait_for_selector(".model li")
        yield watched.page
        assert watched.messages == []
        assert all(url.startswith(address) for url in watched.requests)


def expect_history(page, names):
    """Waits for it: the page asks the server before it shows anything."""
    expect(page.locator("#history button")).to_have_text([f"{name} ×" for name in names])


def first_model(page):
    return page.locator("#models .model").nth(0)


def test_clicks_build_a_history_and_back_takes_them_back(page):
    expect(first_model(page).locator("button.item")).to_have_text(
        ["item-0", "item-1", MARKUP, "item-3"]
    )  # popular items for a new visitor
    page.locator("#models .model").nth(0).get_by_role("button", name="item-0", exact=True).click()
    expect_history(page, ["item-0"])
    expect(first_model(page).get_by_role("button", name="item-0", exact=True)).to_have_count(0)
    page.locator("#models .model").nth(1).get_by_role("button", name="item-3", exact=True).click()
    expect_history(page, ["item-3", "item-0"])  # the latest first
    page.go_back()
    expect_history(page, ["item-0"])
    page.get_by_role("button", name="remove item-0").click()
    expect_history(page, [])


def test_a_visitor_is_typed_by_keyboard_and_an_unknown_one_is_told(page):
    page.locator("#visitor").fill("anna")
    page.keyboard.press("Enter")
    expect_history(page, ["item-3", "item-1"])
    expect(page.locator("#known")).to_contain_text("A known visitor")
    page.locator("#visitor").fill("nobody")
    page.keyboard.press("Enter")
    expect(page.locator("#known")).to_contain_text("Unknown")
    expect_history(page, [])


def test_back_to_a_visitor_tells_again_whether_he_is_known(page):
    for name in ("anna", "nobody"):
        page.locator("#visitor").fill(name)
        page.keyboard.press("Enter")
        expect(page.locator("#known")).to_contain_text("A known visitor" if name == "anna" else "Unknown")
    page.go_back()
    expect(page.locator("#visitor")).to_have_value("anna")
    expect(page.locator("#known")).to_have_text("A known visitor.")
    page.go_back()
    expect(page.locator("#known")).to_have_text("")


def test_of_two_visitors_typed_quickly_the_later_is_taken(page):
    waiting = []

    def hold(route):
        waiting.append(route)

    page.route("**/api/visitor", hold)
    for name in ("anna", "bob"):
        page.locator("#visitor").fill(name)
        with page.expect_request("**/api/visitor"):
            page.keyboard.press("Enter")
    first, second = waiting
    with page.expect_response("**/api/recommend"):
        second.continue_()
    with page.expect_response("**/api/visitor"):
        first.continue_()
    page.evaluate("new Promise(requestAnimationFrame)")  # time for the page to take anna
    expect_history(page, ["item-0"])
    expect(page.locator("#visitor")).to_have_value("bob")


def test_markup_in_an_id_stays_text(page):
    page.locator("#item").fill(MARKUP)
    page.keyboard.press("Enter")
    expect_history(page, [MARKUP])
    page.locator("#item").fill("<b>gone</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#unknown")).to_contain_text("<b>gone</b>")
    assert page.locator("img, main b").count() == 0


def test_similar_items_open_take_the_focus_and_close(page):
    page.get_by_role("button", name="similar to item-0").first.click()
    page.wait_for_selector("#similar li")
    expect(page.locator("#similar-title")).to_be_focused()
    page.locator("#close").click()
    expect(page.locator("#similar")).to_be_hidden()


def test_ten_thousand_items_of_history_are_shown_in_part(page):
    page.evaluate("history.replaceState({visitor: '', history: Array(10000).fill('item-0')}, ''); telling(show)")
    expect(page.locator("#count")).to_contain_text("10,000")
    expect(page.locator("#history li")).to_have_count(61)
    expect(first_model(page).get_by_role("button", name="item-0", exact=True)).to_have_count(0)


def test_a_wrong_number_is_told_on_the_page(address):
    with open_page(address) as watched:
        watched.page.wait_for_selector(".model li")
        watched.page.locator("#k").fill("0")
        watched.page.keyboard.press("Enter")
        expect(watched.page.locator("#error")).to_contain_text("from 1 to 100")


def test_nothing_is_wider_than_a_phone(address):
    with open_page(address, width=360, scheme="dark") as watched:
        watched.page.wait_for_selector(".model li")
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360
