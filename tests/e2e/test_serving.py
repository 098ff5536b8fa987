"""A pod loads the exported model and recommends what it recommends without a cluster."""

import json
import subprocess
import sys

import pytest

from tests.e2e.shops import Shop

pytestmark = pytest.mark.e2e

RECOMMEND = """
import json, sys, tensorflow as tf
recommend = tf.saved_model.load(sys.argv[1]).signatures["recommend"]
answer = recommend(
    visitor_id=tf.constant(sys.argv[2:]),
    history=tf.constant([[""]] * len(sys.argv[2:])),
    k=tf.constant([5]),
    exclude_seen=tf.constant([False]),
)
print(json.dumps({name: value.numpy().astype(str).tolist() for name, value in sorted(answer.items())}))
"""


def test_a_pod_serves_the_export(shop: Shop) -> None:
    visitor = (shop.data / "dataset" / "vocabulary" / "visitors.txt").read_text().splitlines()[0]
    model = "models/cartwheel/1"
    answer = json.loads(shop.run_pod("serving", "python", "-c", RECOMMEND, f"/data/{model}", visitor).splitlines()[-1])
    command = [sys.executable, "-c", RECOMMEND, str(shop.data / model), visitor]
    local = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert answer == json.loads(local.stdout)
    assert len(answer["item_id"][0]) == 5
