import json
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.dataset_builder import Event, build_dataset
from tests.trainer.ranking.fakes import DotModel
from trainer.data.offer import OfferRules
from trainer.demo.answers import Answers
from trainer.demo.exports import open_exports
from trainer.demo.server import make_server
from trainer.demo.shop import open_shop
from trainer.export import export_model

MARKUP = "<img src=x onerror=alert(1)>"
MARKED_VISITOR = "<b>eve</b>"
ITEMS = ["item-0", "item-1", MARKUP, "item-3"]
TITLES = {"item-0": "Blue canvas sneakers", "item-3": "<b>Red</b> leather boots"}


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="session")
def dataset(root):
    return build_dataset(
        str(root / "dataset"),
        train=[Event("anna", "item-1", timestamp_ms=1), Event("bob", "item-0", timestamp_ms=2)],
        validation=[Event("anna", "item-3", timestamp_ms=3)],
        visitors=["anna", "bob", MARKED_VISITOR],
        items=ITEMS,
        categories={"item-0": ["7"], MARKUP: ["7", "70"]},
        available={"item-0": False, "item-3": True},
    )


@pytest.fixture(scope="session")
def exports(root, dataset):
    """Two exports of all items: anna's scores are 4, 3, 2, 1 in the first and 1, 2, 3, 4 in the second.

    The first is also exported without the unavailable item-0, as `stocked`.
    """
    everything = OfferRules(include_unavailable=True)
    for name, scores in {"first": [4.0, 3.0, 2.0, 1.0], "second": [1.0, 2.0, 3.0, 4.0]}.items():
        vectors = np.array([[score, 1.0] for score in scores])
        model = DotModel(np.array([[1.0, 0.0]] * 3), vectors, np.array([0.4, 0.3, 0.2, 0.1]))
        export_model(model, dataset, str(root / name), name=name, rules=everything)
        if name == "first":
            export_model(model, dataset, str(root / "stocked"), name="stocked")
    return open_exports([str(root / "first"), str(root / "second")])


@pytest.fixture(scope="session")
def answers(exports, dataset):
    return Answers(exports, open_shop(dataset))


@pytest.fixture(scope="session")
def titled_answers(exports, dataset):
    """Answers about the same shop with titles for some items."""
    shop = open_shop(dataset)
    items = {item: replace(known, title=TITLES.get(item)) for item, known in shop.items.items()}
    return Answers(exports, replace(shop, items=items))


@contextmanager
def served(answers):
    """Serves the answers and yields their address."""
    server = make_server(answers, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(timeout=300)


@pytest.fixture
def address(answers):
    with served(answers) as url:
        yield url


@pytest.fixture
def address_without_dataset(exports):
    with served(Answers(exports, open_shop(None))) as url:
        yield url


@pytest.fixture
def ask(address):
    """Sends a query to the server and returns the status and the JSON answer."""

    def send(path, query, **headers):
        body = query if isinstance(query, bytes) else json.dumps(query).encode()
        all_headers = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): text for name, text in headers.items()
        }
        request = urllib.request.Request(f"{address}/api/{path}", body, all_headers)
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return send
