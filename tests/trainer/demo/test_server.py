import urllib.request

import pytest
import tensorflow as tf

from tests.trainer.dataset_builder import Event, build_dataset
from tests.trainer.demo.conftest import MARKUP, TITLES
from trainer import cli
from trainer.demo.answers import Answers
from trainer.demo.exports import distinct_names, open_exports
from trainer.demo.server import DemoServer, warn_about_unknown_items
from trainer.demo.shop import Item, Shop, open_shop
from trainer.serving.layout import write_info

QUERY = {"visitor": "anna", "history": [], "k": 2, "hide_seen": True}


def ids(answer):
    return {model["name"]: [item["id"] for item in model["items"]] for model in answer["models"]}


def test_each_model_returns_its_own_ranking(ask):
    status, answer = ask("recommend", QUERY)
    assert status == 200
    assert ids(answer) == {"first": ["item-0", "item-1"], "second": ["item-3", MARKUP]}
    # dot products 4 and 3, biases 0.4 and 0.3
    assert [item["score"] for item in answer["models"][0]["items"]] == pytest.approx([4.4, 3.3])
    assert answer["models"][1]["items"][1]["category"] == "70"
    assert all(model["milliseconds"] > 0 for model in answer["models"])


def test_seen_items_are_hidden_only_on_request(ask):
    seen = QUERY | {"history": ["item-0"]}
    assert ids(ask("recommend", seen)[1])["first"] == ["item-1", MARKUP]
    assert ids(ask("recommend", seen | {"hide_seen": False})[1])["first"] == ["item-0", "item-1"]


def test_a_known_visitor_comes_with_the_items_of_all_splits(ask):
    known = {"is_known": True, "history": ["item-1", "item-3"], "titles": {}}
    assert ask("visitor", {"visitor": "anna"})[1] == known
    assert ask("visitor", {"visitor": MARKUP})[1] == {"is_known": False, "history": [], "titles": {}}


def test_items_come_with_their_titles(titled_answers):
    answer = titled_answers.recommend(QUERY | {"history": ["item-0", "item-1", "gone"], "k": 4})
    assert [item["title"] for item in answer["models"][0]["items"]] == [None, TITLES["item-3"]]
    assert answer["titles"] == {"item-0": TITLES["item-0"]}
    assert titled_answers.visitor("anna")["titles"] == {"item-3": TITLES["item-3"]}
    assert titled_answers.search("item-0")[0]["title"] == TITLES["item-0"]


def test_the_titles_are_those_of_the_catalogue(tmp_path):
    shop = open_shop(
        build_dataset(
            str(tmp_path),
            train=[Event("anna", "item-0"), Event("anna", "item-1")],
            visitors=["anna"],
            items=["item-0", "item-1"],
            titles={"item-1": "Sneakers, blue"},
        )
    )
    assert shop.items == {"item-0": Item(), "item-1": Item(title="Sneakers, blue")}


def test_unknown_items_are_listed_and_ignored(ask):
    _, answer = ask("recommend", QUERY | {"history": ["gone", "item-0", "gone"]})
    assert (answer["unknown"], answer["num_unknown"]) == (["gone"], 1)
    assert ids(answer)["first"] == ["item-1", MARKUP]


def test_a_history_of_ten_thousand_items_is_answered(ask):
    status, answer = ask("recommend", QUERY | {"history": ["item-0", "item-1"] * 5000, "k": 100})
    assert status == 200
    assert ids(answer)["first"] == [MARKUP, "item-3"]


def test_search_finds_items_by_the_start_of_their_id_or_by_their_category(ask):
    assert [item["id"] for item in ask("search", {"text": "item-"})[1]] == ["item-0", "item-1", "item-3"]
    assert [item["id"] for item in ask("search", {"text": "70"})[1]] == [MARKUP]


def test_similar_items_exclude_the_item_itself(ask):
    _, answer = ask("similar", {"item": "item-0", "k": 4})
    # the angle to (4, 1) grows from (3, 1) to (2, 1) to (1, 1)
    assert ids(answer)["first"] == ["item-1", MARKUP, "item-3"]
    assert answer["is_known"]


@pytest.mark.parametrize(
    ("change", "message"),
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
def test_an_invalid_query_is_refused_with_the_reason(ask, change, message):
    status, answer = ask("recommend", QUERY | change)
    assert status == 400
    assert message in answer["error"]


def test_malformed_requests_are_refused(ask):
    assert ask("recommend", b"{")[0] == 400
    assert ask("recommend", b"[]")[0] == 400
    assert ask("recommend", b"[" * 100_000)[0] == 400
    assert ask("nothing", {})[0] == 404
    assert ask("overview", {}, Content_Type="text/plain")[0] == 415


def test_a_foreign_host_name_is_refused(ask):
    status, answer = ask("overview", {}, Host="evil.example")
    assert status == 403
    assert "only, got 'evil.example'; from another machine, open http://localhost:" in answer["error"]


@pytest.mark.usefixtures("exports")
def test_the_server_listens_on_loopback_unless_a_host_is_given(root, monkeypatch):
    bound = []

    def serve(server):
        bound.append(server.socket.getsockname()[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(DemoServer, "serve_forever", serve)
    command = ["demo", "--model", str(root / "first"), "--port", "0"]
    assert cli.main(command) == 0
    assert cli.main([*command, "--host", "0.0.0.0"]) == 0
    assert bound == ["127.0.0.1", "0.0.0.0"]


def test_the_page_may_not_load_anything_from_other_sites(address):
    with urllib.request.urlopen(address, timeout=300) as response:
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")


def test_models_of_the_same_name_are_distinguished_by_their_paths():
    assert distinct_names(["mf", "nn"], ["a/export", "b/export"]) == ["mf", "nn"]
    names = distinct_names(["mf", "nn", "mf"], ["runs/new/export", "runs/nn/export", "runs/old/export/"])
    assert names == ["mf (new/export)", "nn", "mf (old/export)"]
    with pytest.raises(ValueError, match="given twice"):
        distinct_names(["mf", "mf"], ["a/mf", "a/mf/"])


def test_an_export_without_a_name_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match=r"assets.extra/model.json in .* is missing, damaged .*; export the run again"):
        open_exports([str(tmp_path)])


def test_a_directory_that_is_no_export_is_refused_with_the_export_command(tmp_path):
    with pytest.raises(
        ValueError, match=r"is not a SavedModel; give the directory that `cartwheel export --workdir RUN "
    ):
        open_exports([str(tmp_path)])
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=f"is a run; give the directory that `cartwheel export --workdir {tmp_path} "):
        open_exports([str(tmp_path)])


@pytest.mark.usefixtures("exports")
def test_lists_show_only_items_on_offer_and_histories_show_all(root, dataset):
    stocked = Answers(open_exports([str(root / "stocked")]), open_shop(dataset))
    answer = stocked.recommend(QUERY | {"history": ["item-0"], "hide_seen": False, "k": 4})
    assert ids(answer)["stocked"] == ["item-1", MARKUP, "item-3"]
    assert answer["models"][0]["offered"] == 3
    assert ids(stocked.similar({"item": "item-0", "k": 4}))["stocked"] == ["item-1", MARKUP, "item-3"]
    (found,) = stocked.search("item-0")
    assert found["is_available"] is False


def test_an_export_without_a_mask_is_refused(tmp_path):
    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
        def recommend(self, k):
            return {"k": k}

    model = Model()
    signatures = {"recommend": model.recommend, "similar_items": model.recommend}
    tf.saved_model.save(model, str(tmp_path), signatures=signatures)
    write_info(str(tmp_path), {"name": "old", "offer": {}, "half_lives_days": []})
    with pytest.raises(ValueError, match="lacks the mask of items on offer; export the run again"):
        open_exports([str(tmp_path)])


def test_a_history_is_in_time_order_for_any_split_of_the_dataset(tmp_path):
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


def test_the_dataset_of_another_shop_causes_a_warning(exports, caplog):
    warn_about_unknown_items(exports, Shop({}, None))
    warn_about_unknown_items(exports, Shop({"item-0": Item(), "item-1": Item()}, None))
    assert caplog.text == ""
    warn_about_unknown_items(exports, Shop({"item-0": Item(), "other": Item()}, None))
    assert "--data contains 1 of the 4 items of first, so it is perhaps the dataset of another shop" in caplog.text
