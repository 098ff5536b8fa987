"""The bill of materials lists exactly the pins."""

import json
import re
from importlib import metadata

import pytest

from tools.sbom import FILES, ROOT, Package, build_sbom, find_licence, main, parse_pin, pin_dates, read_pins


def test_it_lists_exactly_the_pins(tmp_path):
    assert main(["--output", str(tmp_path / "sbom.json")]) == 0
    sbom = json.loads((tmp_path / "sbom.json").read_text())
    listed = {
        (component["purl"], entry["value"])
        for component in sbom["components"]
        for entry in component["properties"]
        if entry["name"] == "cartwheel:pinned-in"
    }
    # a pin is a line that is neither a comment nor a hash
    pinned = {
        (f"pkg:pypi/{line.split(' ')[0].replace('==', '@')}", file)
        for file in FILES
        for line in (ROOT / file).read_text().splitlines()
        if re.match(r"[^\s#]", line)
    }
    assert listed == pinned
    assert {file for _, file in pinned} == set(FILES)
    references = [component["bom-ref"] for component in sbom["components"]]
    assert len(references) == len(set(references))
    assert (sbom["bomFormat"], sbom["specVersion"], sbom["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "1.6",
        "cartwheel",
    )


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("Google_Auth[pyopenssl]==2.1 ; python_version > '3' \\", Package("google-auth", "2.1")),
        ("ruamel.yaml==0.18.6", Package("ruamel-yaml", "0.18.6")),
        ("    --hash=sha256:00", None),
        ("    # via numpy==1", None),
        ("-e .", None),
    ],
)
def test_a_pin_is_a_name_and_a_version(line, package):
    assert parse_pin(line) == package


def test_a_file_without_pins_is_refused(tmp_path):
    (tmp_path / "pins.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"pins\.txt pins no package"):
        read_pins(["pins.txt"], tmp_path)


def test_a_package_has_the_licence_and_the_day_that_are_known():
    numpy = Package("numpy", metadata.version("numpy"))
    pins = {numpy: ["a.txt", "b.txt"], Package("absent", "1"): ["a.txt"], Package("numpy", "0"): ["a.txt"]}
    sbom = build_sbom(pins, {numpy: "2026-01-02"}, version="1", commit=None)
    first, absent, other = sbom["components"]
    assert [entry["value"] for entry in first["properties"]] == ["a.txt", "b.txt", "2026-01-02"]
    assert "BSD" in str(first["licenses"])
    assert "licenses" not in absent
    assert "licenses" not in other, "the licence of another version may differ"
    assert find_licence(numpy) == first["licenses"][0]


def test_a_pin_has_the_day_of_its_commit():
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    days = pin_dates()
    assert days.keys() == read_pins().keys()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", day) for day in days.values())
