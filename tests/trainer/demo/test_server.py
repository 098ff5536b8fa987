import urllib.request

import pytest

from tests.trainer.dataset_builder import Event, build_dataset
from tests.trainer.demo.conftest import MARKUP
from trainer import cli
from trainer.demo.answers import Answers
from trainer.demo.exports import distinct_names, open_exports
from trainer.demo.server import DemoServer, tell_of_strangers
from trainer.demo.shop import Item, Shop, open_shop

QUESTION = {"visitor": "anna", "history": [], "k": 2, "hide_seen": True, "only_available": False}


def ids(answer):
    return {model["name"]: [item["id"] for item in model["items"]] for model in answer["models"]}


def test_each_model_ranks_for_a_visitor_in_its_own_way(ask):
    status, answer = ask("recommend", QUESTION)
    assert status == 200
    assert ids(answer) == {"first": ["item-0", "item-1"], "second": ["item-3", MARKUP]}
    # products 4 and 3, and the biases 0.4 and 0.3
    assert [item["score"] for item in answer["models"][0]["items"]] == pytest.approx([4.4, 3.3])
    assert answer["models"][1]["items"][1]["category"] == "70"
    assert all(model["milliseconds"] > 0 for model in answer["models"])


def test_what_was_seen_is_hidden_only_where_that_is_asked_for(ask):
    seen = QUESTION | {"history": ["item-0"]}
    assert ids(ask("recommend", seen)[1])["first"] == ["item-1", MARKUP]
    assert ids(ask("recommend", seen | {"hide_seen": False})[1])["first"] == ["item-0", "item-1"]


def test_a_known_visitor_comes_with_the_items_of_all_splits(ask):
    assert ask("visitor", {"visitor": "anna"})[1] == {"is_known": True, "history": ["item-1", "item-3"]}
    assert ask("visitor", {"visitor": MARKUP})[1] == {"is_known": False, "history": []}


def test_unknown_items_are_named_and_left_out(ask):
    _, answer = ask("recommend", QUESTION | {"history": ["gone", "item-0", "gone"]})
    assert (answer["unknown"], answer["num_unknown"]) == (["gone"], 1)
    assert ids(answer)["first"] == ["item-1", MARKUP]


def test_ten_thousand_items_of_history_are_answered(ask):
    status, answer = ask("recommend", QUESTION | {"history": ["item-0", "item-1"] * 5000, "k": 100})
    assert status == 200
    assert ids(answer)["first"] == [MARKUP, "item-3"]


def test_items_are_found_by_the_beginning_of_their_id_or_by_their_category(ask):
    assert [item["id"] for item in ask("search", {"text": "item-"})[1]] == ["item-0", "item-1", "item-3"]
    assert [item["id"] for item in ask("search", {"text": "70"})[1]] == [MARKUP]


def test_similar_items_leave_out_the_item_itself(ask):
    _, answer = ask("similar", {"item": "item-0", "k": 4})
    # the vectors (4, 1), (3, 1), (2, 1), (1, 1) turn away from (4, 1) one after the other
    assert ids(answer)["first"] == ["item-1", MARKUP, "item-3"]
    assert answer["is_known"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"k": 0}, "k must be a whole number from 1 to 100, got 0"),
        ({"k": True}, "got True"),
        ({"history": "item-0"}, "history must be a list"),
        ({"history": ["item-0"] * 20_001}, "at most 20000 items, got 20001"),
        ({"visitor": None}, "visitor must be text"),
        ({"visitor": "\ud800"}, "surrogates not allowed"),
        ({"hide_seen": "yes"}, "hide_seen must be true or false"),
    ],
)
def test_a_wrong_question_is_refused_in_words(ask, change, told):
    status, answer = ask("recommend", QUESTION | change)
    assert status == 400
    assert told in answer["error"]


def test_what_is_no_question_is_refused(ask):
    assert ask("recommend", b"{")[0] == 400
    assert ask("recommend", b"[]")[0] == 400
    assert ask("recommend", b"[" * 100_000)[0] == 400
    assert ask("nothing", {})[0] == 404
    assert ask("overview", {}, Content_Type="text/plain")[0] == 415


def test_a_foreign_name_for_this_machine_is_refused(ask):
    status, answer = ask("overview", {}, Host="evil.example")
    assert status == 403
    assert "this machine only" in answer["error"]


@pytest.mark.usefixtures("exports")
def test_only_this_machine_is_served_unless_another_host_is_given(root, monkeypatch):
    bound = []

    def serve(server):
        bound.append(server.socket.getsockname()[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(DemoServer, "serve_forever", serve)
    command = ["demo", "--model", str(root / "first"), "--port", "0"]
    assert cli.main(command) == 0
    assert cli.main([*command, "--host", "0.0.0.0"]) == 0
    assert bound == ["127.0.0.1", "0.0.0.0"]


def test_the_page_may_load_nothing_from_elsewhere(address):
    with urllib.request.urlopen(address, timeout=20) as response:
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")


def test_exports_are_named_by_what_tells_them_apart():
    assert distinct_names(["runs/mf/export", "runs/nn/export/"]) == ["mf/export", "nn/export"]
    assert distinct_names(["s3://shop/mf"]) == ["mf"]
    with pytest.raises(ValueError, match="given twice"):
        distinct_names(["a/mf", "a/mf/"])


def test_what_is_not_an_export_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"is not a SavedModel; give what `python -m trainer export --workdir RUN "):
        open_exports([str(tmp_path)])
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=f"is a run; give what `python -m trainer export --workdir {tmp_path} --outp"):
        open_exports([str(tmp_path)])


def test_only_what_the_catalogue_calls_available_is_shown_where_that_is_asked_for(exports):
    told = {"item-3": Item(is_available=True), "item-0": Item(is_available=False)}  # of the others nothing is known
    answer = Answers(exports, Shop(told, None)).recommend(QUESTION | {"only_available": True})
    assert ids(answer) == {"first": ["item-3"], "second": ["item-3"]}


def test_a_history_is_in_order_of_time_however_the_dataset_was_split(tmp_path):
    shop = open_shop(
        build_dataset(
            str(tmp_path),
            train=[Event("anna", "item-0", timestamp_ms=10), Event("anna", "item-2", timestamp_ms=30)],
            validation=[Event("anna", "item-1", timestamp_ms=20)],
            visitors=["anna"],
            items=["item-0", "item-1", "item-2"],
        )
    )
    assert shop.timelines is not None
    assert shop.timelines.history("anna") == ["item-0", "item-1", "item-2"]


def test_the_dataset_of_another_shop_is_told(exports, caplog):
    tell_of_strangers(exports, Shop({}, None))
    tell_of_strangers(exports, Shop({"item-0": Item(), "item-1": Item()}, None))
    assert caplog.text == ""
    tell_of_strangers(exports, Shop({"item-0": Item(), "other": Item()}, None))
    assert "of the 4 items of first --data has 1: it is another shop's" in caplog.text
