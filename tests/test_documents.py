"""Every command in the documents runs, or is at least valid for the program that it calls.

Separate tests run the commands of the tutorial, of docs/extending.md and of README in sequence. All other commands
of this project are parsed by their program's own parser, including their settings. Flags and settings in sentences
and `make` targets are looked up. Commands that need a cloud, a cluster or Docker are listed below, with the test that
covers them where there is one. Anything else fails. `--log-cli-level=INFO` shows how each command was checked.
"""

import importlib
import importlib.util
import logging
import re
import shlex
import tomllib

import pytest

import cartwheel.cli
import cartwheel.refresh_cli
import k8s.cli
import preprocessing.beam.job
import preprocessing.cli
import trainer.cli
from common.settings import settings_of
from k8s.placement import choose_placement
from k8s.steps import build_steps
from preprocessing.config import PrepareConfig
from tests.documents import DOCUMENTS, ROOT, blocks, commands, named_commands
from tests.test_help import parsers
from tools.commands import subcommands
from trainer.config.presets import PRESETS
from trainer.evaluation.config import EvaluationConfig

log = logging.getLogger(__name__)

LANGUAGES = {
    "bash": "commands",
    "text": "their output, and drawings",
    "python": "run by the document's own test",
    "diff": "applied by the document's own test",
    "toml": "prepared: tests/integration/test_your_data.py",
    "sql": "needs a BigQuery project",
}
BY_OWN_TESTS = {
    "docs/extending.md": "run: tests/integration/test_extending.py",
    "docs/tutorial.md": "run: tests/integration/test_tutorial.py",
}
SETTINGS = {"prepare": PrepareConfig(events=""), "train": PRESETS["mf"], "evaluate": EvaluationConfig()}
"""The config that `--set` changes, by command."""
PARSERS = {"tests.campaign": "tests.campaign.__main__", "tests.integration.soak": "tests.integration.soak"}
"""The module with the parser of each long test."""
FOREIGN = {
    ("docs/operations.md", "gcloud"): "needs a Google Cloud project",
    ("docs/operations.md", "aws"): "needs an AWS account",
    ("docs/operations.md", "eksctl"): "needs an AWS account",
    ("docs/operations.md", "kubectl"): "needs a cluster",
    ("k8s/README.md", "git"): "done in any checkout",
    ("k8s/README.md", "cd"): "done in any checkout",
    ("k8s/README.md", "kubectl"): "needs a cluster; the manifests are rendered by tests/k8s/test_overlays.py",
    ("k8s/README.md", "grep"): "run: tests/k8s/test_submit.py compares its output",
    ("k8s/README.md", "docker"): "needs Docker; the images are run by tests/integration/test_containers.py",
    ("k8s/README.md", "curl"): "needs a model server",
}
PREPARE = "cartwheel prepare --events E --output D"
MAKE_TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

MARKERS = {
    marker.partition(":")[0]
    for marker in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
}

ALL = [
    (document, command)
    for document in DOCUMENTS
    for block in blocks(document)
    if block.language == "bash"
    for command in commands(block)
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_test_exists(document: str) -> None:
    """A path, or a path and a function, such as in the tables of claims and the tests that check them."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / document).read_text())
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or (name and f"\ndef {name}(" not in (ROOT / path).read_text())
    ]
    assert missing == []


def test_every_block_names_its_language() -> None:
    unnamed = [
        f"{block.document}:{block.line}: ```{block.language}"
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language not in LANGUAGES
    ]
    assert unnamed == [], f"the language of a fence is one of {', '.join(LANGUAGES)}"


@pytest.mark.parametrize(("document", "command"), ALL)
def test_every_command_is_valid_for_its_program(document: str, command: str) -> None:
    log.info("%s: %s: %s", document, command, examine(document, command))


@pytest.mark.parametrize(
    ("document", "command"), [(document, command) for document in DOCUMENTS for command in named_commands(document)]
)
def test_flags_and_settings_in_sentences_exist(document: str, command: str) -> None:
    if re.match(r"python3? (-m (benchmarks|tools|tests)|k8s/)|cartwheel submit ", command):
        examine(document, command)
    else:
        look_up(command)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("prepare --baselin D", "prepare has no --baselin"),
        ("python -m trainer prepare", "trainer has no prepare"),
        ("train --set model.dims=8", "train has no setting model.dims"),
    ],
)
def test_a_wrong_name_in_a_sentence_is_found(command: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        look_up(command)


@pytest.mark.parametrize(
    ("document", "command", "reason"),
    [
        ("README.md", "python -m trainer trian --data D", "invalid choice: 'trian'"),
        ("README.md", "cartwheel trian --data D", "invalid choice: 'trian'"),
        ("README.md", "cartwheel refresh E --output N --item I", "unrecognized arguments: --item"),
        ("README.md", "cartwheel train --preset mf --data D --workdir R --set epoch=3", "did you mean"),
        ("README.md", "python -m preprocessing prepare --events E --output D --test-form now", "--test-form"),
        ("README.md", f"{PREPARE} --runner=FlinkRunner --flink_mastre=h:8081", "flink_mastre"),
        ("README.md", f"{PREPARE} --runner=FlinkRunner --flink_version=1.2", "flink_version"),
        ("README.md", f"{PREPARE} --runner=SparkRunner --spark_url=h", "spark_url"),
        ("README.md", f"{PREPARE} --runner=DataflowRunner --temp_location=gs://B/t --machine=n2", "machine"),
        ("README.md", f"{PREPARE} --runner=DataflowRunner --region=R --project=project", "temp_location"),
        ("README.md", "python k8s/submit.py train --preset mf --data D", "required: --workdir"),
        ("README.md", "cartwheel submit train --preset mf --data D", "required: --workdir"),
        ("README.md", "cartwheel evaluate --workdir RUN --split train", "invalid choice: 'train'"),
        ("README.md", "python -m benchmarks.speed", "no module"),
        ("README.md", "python -m pytest -m 'same_number and slow'", "no marker same_number"),
        ("README.md", "python -m tests.integration.soak --data D --output O --kill all", "--kill"),
        ("README.md", "python -m tests.campaign --minute 3", "--minute"),
        ("README.md", "make love", "no target"),
        ("README.md", "gcloud init", "neither this project's nor in FOREIGN"),
        ("docs/operations.md", "kubectl apply -k k8s/overlays/moon", "does not exist"),
    ],
)
def test_a_wrong_command_is_found(document: str, command: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((AssertionError, SystemExit, ValueError)) as found:
        examine(document, command)
    assert reason in capsys.readouterr().err + str(found.value)


def examine(document: str, command: str) -> str:
    """Checks a command and returns the kind of the check.

    Raises:
      AssertionError, SystemExit, ValueError: the command is wrong.
    """
    words = expand(shlex.split(command))
    for path in (word.lstrip("@") for word in words if re.match(r"@?k8s/", word)):
        assert (ROOT / path).exists(), f"{path} does not exist"
    if document in BY_OWN_TESTS:
        return BY_OWN_TESTS[document]
    match words:
        case ["python" | "python3", "-m", "preprocessing" | "trainer" as job, *arguments]:
            parse(job, arguments)
            return "parsed"
        case ["python", "-m", "cartwheel", *arguments]:
            cartwheel.refresh_cli.build_parser().parse_args(arguments)
            return "parsed"
        case ["python" | "python3", "k8s/submit.py", *arguments]:
            parse("k8s", arguments[: arguments.index(">")] if ">" in arguments else arguments)
            return "parsed"
        case ["python", "-m", module, *_] if module.startswith(("benchmarks.", "tools")):
            assert importlib.util.find_spec(module), f"no module {module}"
            return "the module exists"
        case ["python", "-m", "pytest", "-m", expression, *_]:
            unknown = set(re.findall(r"\w+", expression)) - MARKERS - {"and", "or", "not"}
            assert not unknown, f"no marker {', '.join(sorted(unknown))}"
            return "the markers exist"
        case ["python", "-m", "tests.campaign" | "tests.integration.soak" as module, *arguments]:
            importlib.import_module(PARSERS[module]).build_parser().parse_args(arguments)
            return "parsed"
        case ["make", *arguments]:
            targets = [word for word in arguments if "=" not in word]  # the others are variables
            assert targets, "no target"
            assert set(targets) <= MAKE_TARGETS, f"no target {', '.join(targets)}"
            return "the targets exist"
    assert (document, words[0]) in FOREIGN, f"`{command}` is neither this project's nor in FOREIGN"
    return FOREIGN[document, words[0]]


def expand(words: list[str]) -> list[str]:
    """Turns a `cartwheel` command into the command of the package that runs it; other commands are unchanged.

    Raises:
      SystemExit: there is no such verb.
    """
    match words:
        case ["cartwheel", "submit", *arguments]:
            return ["python", "k8s/submit.py", *arguments]
        case ["cartwheel", verb, *arguments]:
            if verb not in cartwheel.cli.VERBS:
                cartwheel.cli.build_parser().parse_args([verb])
            return ["python", "-m", cartwheel.cli._module(verb, arguments).partition(".")[0], verb, *arguments]
    return words


def look_up(command: str) -> None:
    """Looks up a command of a sentence, its flags and its settings.

    Raises:
      AssertionError, SystemExit: the command, a flag or a setting does not exist.
    """
    words = shlex.split(command)
    _, _, job, name, *arguments = expand(
        words if words[0] in ("python", "python3", "cartwheel") else ["cartwheel", *words]
    )
    found = subcommands(cartwheel.refresh_cli.build_parser()) if job == "cartwheel" else parsers(job)
    assert name in found, f"{job} has no {name}"
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if key.startswith("--"):
            assert key in found[name]._option_string_actions, f"{name} has no {key}"
        elif equals:
            assert key in settings_of(SETTINGS[name]), f"{name} has no setting {key}"


def parse(job: str, arguments: list[str]) -> None:
    """Parses arguments and settings as the program does before it starts to work."""
    if job == "preprocessing":
        parser = preprocessing.cli.build_parser()
        given, others = parser.parse_known_args(arguments)
        if others:
            parse_beam_options(given.command, others)
        if given.command == "prepare":
            if given.shop:  # a file that the document's own test writes
                given.shop, given.events = None, "events.csv"
            preprocessing.cli._prepare_config(given)
    elif job == "trainer":
        parser = trainer.cli.build_parser()
        given = parser.parse_args(arguments)
        trainer.cli._read_config(given, parser)
    else:
        parser = k8s.cli.build_parser()
        given = parser.parse_args(arguments)
        if given.command not in k8s.cli._QUERIES:
            build_steps(given, choose_placement(given))


def parse_beam_options(command: str, arguments: list[str]) -> None:
    """Parses the flags that `prepare` passes to Beam with the option classes of all of Beam's runners."""
    assert command == "prepare", f"unrecognized arguments: {' '.join(arguments)}"
    options = preprocessing.beam.job.parse_beam_options(arguments)
    known = options.get_all_options(drop_default=True)
    unknown = options.get_all_options(drop_default=True, retain_unknown_options=True).keys() - known.keys()
    assert not unknown, f"Beam has no {', '.join(sorted(unknown))}"
    if known["runner"] == "DataflowRunner":
        missing = {"project", "region", "temp_location", "sdk_container_image"} - known.keys()
        assert not missing, f"Dataflow needs {', '.join(sorted(missing))}"
