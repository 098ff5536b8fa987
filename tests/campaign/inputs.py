"""Runs commands on mutated inputs and damaged directories: they must have the right result or a clear error."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.campaign.commands import COMMANDS, Products
from tests.campaign.mutations import mutate
from tests.campaign.programs import Ended, Fault, Folder, find_reason, run
from tests.campaign.quick import SHOP, count_lines
from tests.planted import SECRET

_ITEMS = b"sku,stock,title\ni0,1,a\ni1,0,b\ni2,1,c\n"
_READ_ONLY = ("recommend", "export")
_PLACES = (
    "https://host/events.csv?Signature={}",
    "https://host/events.csv?{}",
    "https://host/events.csv#{}",
    "https://user:{}@host/events.csv",
    "s3://key:{}@bucket/events.csv",
    "s3://{}@bucket/events.csv",
    "gs://bucket/events.csv?api_key={}",
    "simplecache::s3://key:{}@bucket/events.csv",
    "abfss://container@account/x?sig={}",
)
_AROUND = ("", "é", "%2F", "/", "=", "&x=", " ", "\n", "]")
_WITH_URI = (
    ("prepare", "--output=output", "--events={}"),
    ("prepare", "--output=output", "--events=a.csv", "--item-properties={}"),
    ("prepare", "--output={}", "--events=a.csv"),
    ("prepare", "--output=output", "--events=a.csv", "--set", "category_tree={}"),
    ("prepare", "--output=output", "--events=a.csv", "--temp_location={}"),
    ("prepare", "--output=output", "--events=a.csv", "--baseline={}"),
    ("inspect", "{}"),
    ("train", "--preset=mf", "--data={}", "--workdir=output"),
    ("train", "--preset=mf", "--data=data", "--workdir={}"),
    ("train", "--preset=mf", "--data=data", "--workdir=output", "--warm-start={}"),
    ("evaluate", "--workdir={}"),
    ("export", "--workdir=run", "--output={}"),
    ("recommend", "--workdir=run", "--output=output", "--visitors={}"),
    ("refresh", "export", "--output=output", "--items={}"),
    ("report", "--workdir={}"),
)


def _events(choices: random.Random, folder: Folder, products: Products) -> str | None:
    return _prepare_with("events", choices, folder, products)


def _properties(choices: random.Random, folder: Folder, products: Products) -> str | None:
    return _prepare_with("properties", choices, folder, products)


def _tree(choices: random.Random, folder: Folder, products: Products) -> str | None:
    return _prepare_with("tree", choices, folder, products)


def _prepare_with(name: str, choices: random.Random, folder: Folder, products: Products) -> str | None:
    """Prepares the small shop with one mutated file; checks that the statistics account for all its lines."""
    shutil.copytree(products("shop"), folder.input, dirs_exist_ok=True)
    path = folder.input / f"{name}.csv"
    path.write_bytes(mutate(path.read_bytes(), choices))
    share = ["--max-reject-share=1"] if choices.random() < 0.5 else []
    arguments = COMMANDS["prepare"].arguments(lambda _: folder.input, folder.output)
    ended = run([*arguments, *share], folder)
    reason = _check_published(ended, folder)
    if reason is None:
        part = {"events": "events", "properties": "item_properties", "tree": "category_tree"}[name]
        counts = json.loads((folder.output / "statistics.json").read_text())[part]
        lines = count_lines(path.read_bytes()) - 1
        if counts["rows"] + counts["blank_lines"] != lines:
            found = f"{counts['rows']} rows and {counts['blank_lines']} blank lines"
            raise Fault(f"the statistics account for {found}, but the file has {lines} lines")
        _check_events(json.loads(ended.out))
    return reason


def _check_events(summary: Mapping) -> None:
    excluded = sum(summary["rejected"].values()) + sum(summary["filtered"].values())
    excluded += summary["duplicates"] + summary["robot_events"]
    if summary["events"] + excluded != summary["rows"]:
        raise Fault(f"{summary['events']} kept and {excluded} excluded of {summary['rows']} rows")


def _toml(choices: random.Random, folder: Folder, products: Products) -> str | None:
    """Prepares with a mutated shop.toml."""
    shutil.copytree(products("shop"), folder.input, dirs_exist_ok=True)
    (folder.input / "shop.toml").write_bytes(mutate(SHOP.encode(), choices))
    return _check_published(
        run(["prepare", "--shop", folder.input / "shop.toml", "--output", folder.output], folder), folder
    )


def _arguments(choices: random.Random, folder: Folder, products: Products) -> str | None:
    """Prepares with a mutated file of arguments."""
    files = products("shop")
    words = [f"--events={files}/events.csv", "--set=items.min_count=2", "--set=num_buckets=4", "--kinds=view", "--json"]
    path = folder.input / "arguments"
    path.write_bytes(mutate("\n".join(words).encode(), choices))
    return _check_published(run(["prepare", "--output", folder.output, f"@{path}"], folder), folder)


def _ids(choices: random.Random, folder: Folder, products: Products) -> str | None:
    """Recommends with a mutated file of `--visitors` or `--deny`."""
    flag, prefix = choices.choice((("--visitors", "v"), ("--deny", "i")))
    path = folder.input / "ids"
    path.write_bytes(mutate("".join(f"{prefix}{number}\n" for number in range(8)).encode(), choices))
    arguments = COMMANDS["recommend"].arguments(products, folder.output)
    return _check_published(run([*arguments, "--k", "5", flag, path], folder), folder)


def _items(choices: random.Random, folder: Folder, products: Products) -> str | None:
    """Refreshes an export with a mutated table of items."""
    path = folder.input / "items.csv"
    path.write_bytes(mutate(_ITEMS, choices))
    columns = ["--map", "id=sku", "availability=stock"]
    ended = run(["refresh", products("export"), "--items", path, *columns, "--output", folder.output], folder)
    return _check_published(ended, folder)


def _dataset(choices: random.Random, folder: Folder, products: Products) -> str | None:
    """Trains, recommends or exports with a dataset that has a damaged file."""
    data = folder.input / "data"
    shutil.copytree(products("data"), data)
    _damage(data, choices)
    name = choices.choice(("train", *_READ_ONLY))
    if name == "train":
        arguments = COMMANDS[name].arguments(lambda _: data, folder.output)
    else:
        arguments = [*COMMANDS[name].arguments(products, folder.output), "--data", data]
    return _check_same(name, run(arguments, folder), folder, products)


def _run(choices: random.Random, folder: Folder, products: Products) -> str | None:
    """Resumes, exports or recommends with a run that has a damaged file."""
    name = choices.choice(("train", *_READ_ONLY))
    workdir = folder.output if name == "train" else folder.input / "run"
    shutil.copytree(products("train"), workdir)
    damaged = _damage(workdir, choices)
    arguments = COMMANDS[name].arguments(lambda other: workdir if other == "train" else products(other), folder.output)
    reason = find_reason(ended := run(arguments, folder))
    if reason is None and "WARNING" not in ended.err and damaged.name not in _LOGS:
        _compare(name, folder, products)
    elif name != "train":
        _check_published(ended, folder)
    return reason


_LOGS = ("report.html", "result.json", "history.jsonl", "metrics.jsonl")
"""Files of a run that do not change its results."""


def _export(choices: random.Random, folder: Folder, products: Products) -> str | None:
    """Refreshes an export with a damaged file.

    A graph is copied unread, so if the graph is damaged, the output is not compared.
    """
    export = folder.input / "export"
    shutil.copytree(products("export"), export)
    damaged = _damage(export, choices)
    arguments = COMMANDS["refresh"].arguments(
        lambda name: export if name == "export" else products(name), folder.output
    )
    ended = run(arguments, folder)
    if damaged.suffix in (".pb", ".md"):
        return _check_published(ended, folder)
    return _check_same("refresh", ended, folder, products)


def _secret(choices: random.Random, folder: Folder, products: Products) -> str | None:
    """Gives a command a URI with a secret. The command must refuse the URI, and may not print the secret."""
    before, after = (choices.choice(_AROUND) for _ in range(2))
    uri = choices.choice(_PLACES).format(f"{before}{SECRET}{after}")
    if choices.random() < 0.3:
        (folder.input / "shop.toml").write_text(f"events = {json.dumps(uri)}\n")
        arguments = ["prepare", "--shop", folder.input / "shop.toml", "--output", folder.output]
    else:
        arguments = [word.replace("{}", uri) for word in choices.choice(_WITH_URI)]
    reason = _check_published(run(arguments, folder), folder)
    if reason is None:
        raise Fault("a URI with a secret is accepted")
    return reason


def _damage(root: Path, choices: random.Random) -> Path:
    """Mutates, empties or removes a random file below a directory, or replaces it by a directory; returns its path."""
    path = choices.choice(sorted(path for path in root.rglob("*") if path.is_file()))
    kind = choices.choice(("mutated", "mutated", "mutated", "empty", "missing", "directory"))
    content = path.read_bytes()
    if kind in ("mutated", "empty"):
        path.write_bytes(mutate(content, choices) if kind == "mutated" else b"")
    else:
        path.unlink()
    if kind == "directory":
        path.mkdir()
    return path


def _check_published(ended: Ended, folder: Folder) -> str | None:
    """Checks that a command published its output, or refused clearly and left no files; returns the error message."""
    reason = find_reason(ended)
    if litter := folder.litter():
        raise Fault(f"left these files behind: {', '.join(litter)}")
    if reason is not None and folder.output.exists():
        raise Fault(f"refused, but has left its output: {reason}")
    if reason is None and not folder.output.exists():
        raise Fault("succeeded without an output")
    return reason


def _check_same(name: str, ended: Ended, folder: Folder, products: Products) -> str | None:
    """Like `_check_published`; also compares a published output with the output for the undamaged input."""
    reason = _check_published(ended, folder)
    if reason is None:
        _compare(name, folder, products)
    return reason


def _compare(name: str, folder: Folder, products: Products) -> None:
    COMMANDS[name].compare(products(name), folder.output)


KINDS: Mapping[str, Callable[[random.Random, Folder, Products], str | None]] = {
    "events": _events,
    "properties": _properties,
    "tree": _tree,
    "toml": _toml,
    "arguments": _arguments,
    "ids": _ids,
    "items": _items,
    "dataset": _dataset,
    "run": _run,
    "export": _export,
    "secret": _secret,
}
"""Kinds of cases: functions that return the error message of a refusal, or None for a success."""
