"""Tests the page in a browser: clicks, typing and the Back button.

Tests wait with `expect`: the page's content policy forbids `eval`, which playwright's wait_for_function needs.
"""

import re

import pytest
from playwright.sync_api import expect

from tests.browser import needs_chromium, open_page
from tests.trainer.demo.conftest import ITEMS, MARKED_VISITOR, MARKUP, TITLES, served

pytestmark = needs_chromium

# the contrast of every text to its background (WCAG 2.2, relative luminance)
CONTRASTS = """() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const surface = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? surface(element.parentElement) : colour;
  };
  const texts = [...document.querySelectorAll("main *, header *")].filter((element) => element.checkVisibility()
    && (element.value || [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())));
  return texts.map((element) => {
    const [dark, bright] = [light(getComputedStyle(element).color), light(surface(element))].sort((a, b) => a - b);
    return [element.id || element.className || element.textContent, (bright + 0.05) / (dark + 0.05)];
  });
}"""


@pytest.fixture
def page(address):
    with open_page(address) as watched:
        watched.page.wait_for_selector(".model li")
        yield watched.page
        assert watched.messages == []
        assert all(url.startswith(address) for url in watched.requests)


def expect_history(page, names):
    """Waits until the page shows this history, which happens after the server's answer."""
    expect(page.locator("#history button")).to_have_text([f"{name} ×" for name in names])


def wait_for_length(page, items, length):
    """Waits until a list is filled by handlers of the page's events, which run only while playwright waits."""
    for _ in range(3000):
        if len(items) >= length:
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"expected {length} items, got {items}")


def first_model(page):
    return page.locator("#models .model").nth(0)


def expect_list(page, names, model=0):
    """Waits until a model shows this list."""
    expect(page.locator("#models .model").nth(model).locator("button.item")).to_have_text(names)


def test_models_are_side_by_side_with_categories_scores_and_latency(page):
    page.locator("#visitor").fill("anna")
    page.keyboard.press("Enter")  # anna's history: item-1 and item-3
    expect_list(page, ["item-0", MARKUP])
    expect(page.locator("#models h3")).to_have_text(["first", "second"])
    # 4 + 0.4 and 2 + 0.2; 1 + 0.4 and 3 + 0.2
    expect(first_model(page).locator(".number")).to_have_text(["4.400", "2.200"])
    expect(page.locator("#models .model").nth(1).locator(".number")).to_have_text(["3.200", "1.400"])
    expect(first_model(page).locator("li .small")).to_have_text(
        ["category 7, unavailable in the dataset", "category 70"]
    )
    expect(first_model(page).locator("h3 + .small")).to_have_text(re.compile(r"^\d+\.\d ms, 4 items on offer$"))


@pytest.fixture
def titled_page(titled_answers):
    with served(titled_answers) as address, open_page(address) as watched:
        watched.page.wait_for_selector(".model li")
        yield watched.page
        assert watched.messages == []


def test_an_item_shows_its_title_first_and_its_id_in_small(titled_page):
    names = [TITLES.get(item, item) for item in ITEMS]
    expect_list(titled_page, names)
    expect(first_model(titled_page).locator("li .small")).to_have_text(
        ["item-0, category 7, unavailable in the dataset", "", "category 70", "item-3"]
    )
    expect(titled_page.locator("#found button")).to_have_text(names)
    assert titled_page.locator("main b").count() == 0, "markup in a title stays text"


def test_a_history_shows_titles_after_a_reload_too(titled_page):
    titled_page.locator("#visitor").fill("anna")
    titled_page.keyboard.press("Enter")
    expect_history(titled_page, [TITLES["item-3"], "item-1"])
    titled_page.reload()
    expect_history(titled_page, [TITLES["item-3"], "item-1"])
    titled_page.get_by_role("button", name=f"Remove {TITLES['item-3']}").click()
    expect_history(titled_page, ["item-1"])


def test_the_heading_of_similar_items_has_the_title(titled_page):
    titled_page.get_by_role("button", name="Similar to Blue canvas sneakers").first.click()
    expect(titled_page.locator("#similar-title")).to_have_text("Similar to Blue canvas sneakers")


def test_k_shortens_the_lists(page):
    page.locator("#k").fill("2")
    page.locator("#k").press("Enter")
    expect_list(page, ["item-0", "item-1"])
    expect(page.locator("#error")).to_have_text("")


def test_unchecking_hide_seen_shows_seen_items(page):
    first_model(page).get_by_role("button", name="item-0", exact=True).click()
    expect_list(page, ["item-1", MARKUP, "item-3"])
    page.get_by_label("Hide seen items").uncheck()
    expect_list(page, ITEMS)
    page.get_by_label("Hide seen items").check()
    expect_list(page, ["item-1", MARKUP, "item-3"])


def test_lists_say_that_they_are_empty_when_all_items_were_seen(page):
    for item in ITEMS:
        page.locator("#item").fill(item)
        page.keyboard.press("Enter")
    expect_history(page, ITEMS[::-1])
    expect(page.locator("#models .model p")).to_have_text(["No items to show."] * 2)


def test_a_click_selects_a_frequent_visitor_and_another_returns_to_a_new_one(page):
    expect(page.locator("#examples button")).to_have_text(["anna", "bob", MARKED_VISITOR])
    page.locator("#examples").get_by_role("button", name="bob").click()
    expect_history(page, ["item-0"])
    expect(page.locator("#visitor")).to_have_value("bob")
    page.get_by_role("button", name="New visitor").click()
    expect_history(page, [])
    expect(page.locator("#visitor")).to_have_value("")
    expect(page.locator("#known")).to_be_hidden()


def test_items_are_suggested_while_typing_and_a_click_adds_them(page):
    expect(page.locator("#found button")).to_have_text(ITEMS)
    page.locator("#item").fill("70")  # a category
    expect(page.locator("#found button")).to_have_text([MARKUP])
    page.locator("#item").fill("item-3")
    expect(page.locator("#found button")).to_have_text(["item-3"])
    page.locator("#found button").click()
    expect_history(page, ["item-3"])


def test_an_empty_field_adds_nothing_and_means_a_new_visitor(page):
    page.locator("#item").fill("item-0")
    page.keyboard.press("Enter")
    page.locator("#item").press("Enter")
    expect_history(page, ["item-0"])
    page.locator("#visitor").press("Enter")
    expect_history(page, [])
    expect(page.locator("#known")).to_be_hidden()
    expect(page.locator("#error")).to_be_hidden()


def test_clicks_build_a_history_and_back_undoes_them(page):
    expect(first_model(page).locator("button.item")).to_have_text(
        ["item-0", "item-1", MARKUP, "item-3"]
    )  # popular items for a new visitor
    page.locator("#models .model").nth(0).get_by_role("button", name="item-0", exact=True).click()
    expect_history(page, ["item-0"])
    expect(first_model(page).get_by_role("button", name="item-0", exact=True)).to_have_count(0)
    page.locator("#models .model").nth(1).get_by_role("button", name="item-3", exact=True).click()
    expect_history(page, ["item-3", "item-0"])  # newest first
    page.go_back()
    expect_history(page, ["item-0"])
    page.get_by_role("button", name="Remove item-0").click()
    expect_history(page, [])


def test_a_typed_visitor_is_shown_as_known_or_unknown(page):
    page.locator("#visitor").fill("anna")
    page.keyboard.press("Enter")
    expect_history(page, ["item-3", "item-1"])
    expect(page.locator("#known")).to_contain_text("Known visitor")
    page.locator("#visitor").fill("zoe")
    page.keyboard.press("Enter")
    expect(page.locator("#known")).to_contain_text("Unknown")
    expect_history(page, [])


def test_back_to_a_visitor_shows_again_whether_they_are_known(page):
    for name in ("anna", "zoe"):
        page.locator("#visitor").fill(name)
        page.keyboard.press("Enter")
        expect(page.locator("#known")).to_contain_text("Known visitor" if name == "anna" else "Unknown")
    page.go_back()
    expect(page.locator("#visitor")).to_have_value("anna")
    expect(page.locator("#known")).to_have_text("Known visitor.")
    page.go_back()
    expect(page.locator("#known")).to_have_text("")


def test_the_later_of_two_quickly_typed_visitors_is_shown(page):
    waiting = []

    def hold(route):
        waiting.append(route)

    page.route("**/api/visitor", hold)
    for number, name in enumerate(("anna", "bob"), 1):
        page.locator("#visitor").fill(name)
        page.keyboard.press("Enter")
        wait_for_length(page, waiting, number)
    first, second = waiting
    with page.expect_response("**/api/recommend"):
        second.continue_()
    with page.expect_response("**/api/visitor"):
        first.continue_()
    page.evaluate("new Promise(requestAnimationFrame)")  # time for the page to handle the late answer for anna
    expect_history(page, ["item-0"])
    expect(page.locator("#visitor")).to_have_value("bob")


def test_markup_in_an_id_stays_text(page):
    page.locator("#item").fill(MARKUP)
    page.keyboard.press("Enter")
    expect_history(page, [MARKUP])
    page.locator("#item").fill("<b>gone</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#unknown")).to_contain_text("<b>gone</b>")
    page.locator("#examples").get_by_role("button", name=MARKED_VISITOR).click()
    expect(page.locator("#visitor")).to_have_value(MARKED_VISITOR)
    expect(page.locator("#known")).to_contain_text("Known visitor")
    page.get_by_role("button", name=f"Similar to {MARKUP}").first.click()
    expect(page.locator("#similar-title")).to_have_text(f"Similar to {MARKUP}")
    assert page.locator("img, main b").count() == 0


def test_similar_items_open_with_the_focus_and_close(page):
    page.get_by_role("button", name="Similar to item-0").first.click()
    page.wait_for_selector("#similar li")
    expect(page.locator("#similar-title")).to_be_focused()
    page.locator("#close").click()
    expect(page.locator("#similar")).to_be_hidden()


def test_a_history_of_ten_thousand_items_is_shown_in_part(page):
    page.evaluate("history.replaceState({visitor: '', history: Array(10000).fill('item-0')}, ''); showErrors(show)")
    expect(page.locator("#count")).to_contain_text("10,000")
    expect(page.locator("#history li")).to_have_count(61)
    expect(first_model(page).get_by_role("button", name="item-0", exact=True)).to_have_count(0)


def test_the_page_shows_an_error_for_an_invalid_number(address):
    with open_page(address) as watched:
        watched.page.wait_for_selector(".model li")
        watched.page.locator("#k").fill("0")
        watched.page.keyboard.press("Enter")
        expect(watched.page.locator("#error")).to_contain_text("from 1 to 100")


def test_the_tab_key_reaches_every_control_in_page_order(page):
    page.locator("#item").fill("item-0")
    page.keyboard.press("Enter")
    expect_list(page, ["item-1", MARKUP, "item-3"])
    controls = "[...document.querySelectorAll('input, button')].filter((element) => element.checkVisibility())"
    count = page.evaluate(f"{controls}.length")
    page.locator("#visitor").focus()
    reached = []
    for _ in range(count):
        reached.append(page.evaluate(f"{controls}.indexOf(document.activeElement)"))
        page.keyboard.press("Tab")
    assert reached == list(range(count))
    first_model(page).locator("button.item").first.focus()
    page.keyboard.press("Enter")
    expect_history(page, ["item-1", "item-0"])


def test_without_a_dataset_the_page_explains_what_is_missing(address_without_dataset):
    with open_page(address_without_dataset) as watched:
        watched.page.wait_for_selector(".model li")
        watched.page.locator("#visitor").fill("anna")
        watched.page.keyboard.press("Enter")
        expect(watched.page.locator("#known")).to_contain_text("start the demo with --data DATASET")
        expect_history(watched.page, [])
        assert watched.messages == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_contrasts_with_its_background(address, scheme):
    with open_page(address, scheme=scheme) as watched:
        watched.page.wait_for_selector(".model li")
        watched.page.locator("#item").fill("gone")
        watched.page.keyboard.press("Enter")
        watched.page.get_by_role("button", name="Similar to item-0").first.click()
        expect(watched.page.locator("#similar")).to_be_visible()
        contrasts = watched.page.evaluate(CONTRASTS)
        surface = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ("unknown" in dict(contrasts), len(contrasts) > 40) == (True, True)
    assert [text for text, contrast in contrasts if contrast < 4.5] == []  # WCAG 2.2, AA
    assert surface == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 23, 29)"}[scheme]


def test_the_page_fits_a_phone(address):
    with open_page(address, width=360, scheme="dark") as watched:
        watched.page.wait_for_selector(".model li")
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360
