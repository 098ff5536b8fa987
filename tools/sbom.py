"""Writes the software bill of materials of a release: all pinned packages, as CycloneDX JSON.

    python -m tools.sbom --output sbom.json

Licences come from the metadata of the installed packages, so a package that is not installed here, such as CUDA, has no
licence. The metadata has no release dates, so the date of a package is that of the commit that pinned its version.
"""

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
FILES = ("constraints.txt", *sorted(f"k8s/requirements/{path.name}" for path in ROOT.glob("k8s/requirements/*.txt")))
"""Files with the pins of the tested environment and of the images."""

_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([^\s;\\]+)")
_COMMIT = re.compile(r"^([0-9a-f]{40}) \d+ \d+( \d+)?$")
_NO_LICENCE = ("", "UNKNOWN")


class Package(NamedTuple):
    """A package and its pinned version."""

    name: str
    """Name in the form of the package index: lowercase, with hyphens."""
    version: str


def read_pins(files: Sequence[str] = FILES, root: Path = ROOT) -> dict[Package, list[str]]:
    """Returns the requirements files that pin each package version.

    Args:
      files: paths relative to `root`.
      root: directory of the project.

    Raises:
      ValueError: a file has no pins.
    """
    pins = defaultdict[Package, list[str]](list)
    for file in files:
        found = [package for line in (root / file).read_text().splitlines() if (package := parse_pin(line))]
        if not found:
            raise ValueError(f"{file} pins no package; expected lines such as `numpy==2.0.0`")
        for package in dict.fromkeys(found):
            pins[package].append(file)
    return dict(sorted(pins.items()))


def parse_pin(line: str) -> Package | None:
    """Returns the package that a line of a requirements file pins, or None."""
    found = _PIN.match(line)
    return Package(re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]) if found else None


def pin_dates(files: Sequence[str] = FILES, root: Path = ROOT) -> dict[Package, str]:
    """Returns the day (ISO 8601) of the earliest commit that pinned each package.

    `files` are relative to `root`. The result is empty outside a git checkout.
    """
    dates: dict[Package, str] = {}
    for file in files:
        command = ["git", "-C", str(root), "blame", "--porcelain", "--", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for line, day in _dated_lines(done.stdout.splitlines()):
            if package := parse_pin(line):
                dates[package] = min(day, dates.get(package, day))
    return dates


def _dated_lines(blame: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields each line of `git blame --porcelain`, with the day (ISO 8601) of its commit."""
    commit, days = "", dict[str, str]()
    for line in blame:
        if found := _COMMIT.match(line):
            commit = found[1]
        elif line.startswith("committer-time "):  # only where the commit is first mentioned
            days[commit] = datetime.fromtimestamp(int(line.split()[1]), UTC).date().isoformat()
        elif line.startswith("\t"):
            yield line[1:], days[commit]


def find_licence(package: Package) -> dict[str, Any] | None:
    """Returns the licence of a package as CycloneDX; None if this version is not installed or names no licence."""
    try:
        found = metadata.distribution(package.name)
    except metadata.PackageNotFoundError:
        return None
    if found.version != package.version:
        return None
    values = {name: found.metadata.get_all(name) or [""] for name in ("License-Expression", "Classifier", "License")}
    if expression := values["License-Expression"][0]:
        return {"expression": expression}
    classifiers = [text for text in values["Classifier"] if text.startswith("License :: ")]
    names = [name for text in classifiers if (name := text.split(" :: ")[-1]) != "OSI Approved"]
    field = values["License"][0].strip().partition("\n")[0].strip()
    name = names[0] if names else field
    return None if name in _NO_LICENCE else {"license": {"name": name}}


def build_sbom(
    pins: Mapping[Package, Sequence[str]], dates: Mapping[Package, str], *, version: str, commit: str | None
) -> dict[str, Any]:
    """Builds the software bill of materials (CycloneDX). It has one component per package version.

    `pins` maps each package version to the requirements files that pin it. `dates` maps package versions to the days
    on which they were pinned. `commit` is None outside git.
    """
    product: dict[str, Any] = {"type": "application", "bom-ref": "cartwheel", "name": "cartwheel", "version": version}
    if commit:
        product["properties"] = [{"name": "cartwheel:commit", "value": commit}]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": product},
        "components": [_component(package, files, dates.get(package)) for package, files in pins.items()],
    }


def _component(package: Package, files: Sequence[str], day: str | None) -> dict[str, Any]:
    purl = f"pkg:pypi/{package.name}@{package.version}"
    component = {"type": "library", "bom-ref": purl, "name": package.name, "version": package.version, "purl": purl}
    licence = find_licence(package)
    properties = [("cartwheel:pinned-in", file) for file in files] + ([("cartwheel:pinned-on", day)] if day else [])
    return {
        **component,
        **({"licenses": [licence]} if licence else {}),
        "properties": [{"name": name, "value": value} for name, value in properties],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the software bill of materials, and reports unknown licences on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file instead of standard output")
    output = parser.parse_args(arguments).output
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip() or None
    sbom = build_sbom(read_pins(), pin_dates(), version=metadata.version("cartwheel"), commit=commit)
    text = json.dumps(sbom, indent=2, allow_nan=False) + "\n"
    if output:
        output.write_text(text)
    else:
        sys.stdout.write(text)
    unknown = [component["name"] for component in sbom["components"] if "licenses" not in component]
    sys.stderr.write(f"{len(sbom['components'])} packages; unknown licences: {', '.join(unknown) or 'none'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
