"""The bill of materials of an image, CycloneDX 1.5 as JSON, from what pinned its content.

Runs inside the build, on the standard library alone.

    sbom.py NAME --version VERSION [--packages LOCK]... [--debian DPKG_STATUS] [--debian-from PACKAGE=DPKG_STATUS]...
                 [--jars FOLDER]

Python packages come from lock files (with the hashes that were allowed), Debian's from dpkg's status
(--debian-from: one package, whose files were copied from the machine with that status), jars from a folder.
The same input gives the same bytes: no time, and the serial number is made from the content.
"""

import argparse
import hashlib
import json
import re
import urllib.parse
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Component = dict[str, Any]
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def quote(text: str) -> str:
    """As package URLs want it: an epoch's colon and a plus are not plain."""
    return urllib.parse.quote(text, safe="")


def python_packages(lock: Path) -> Iterator[Component]:
    """Every package of a lock file. Several hashes: one for each file that may be installed."""
    for line in lock.read_text().splitlines():
        if match := REQUIREMENT.match(line):
            name, version = match[1].lower().replace("_", "-"), match[2]
            component = {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
            component["properties"] = []
            yield component
        elif match := HASH.search(line):
            component["properties"].append({"name": "millrace:allowed-sha256", "value": match[1]})


def debian_packages(status: Path) -> Iterator[Component]:
    """Every installed package of dpkg's status file."""
    for stanza in status.read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status") == "install ok installed":
            name, version, arch = fields["Package"], fields["Version"], fields["Architecture"]
            yield {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={arch}&distro=debian-12",
            }


def jars(folder: Path) -> Iterator[Component]:
    """Every jar of a folder, named by the coordinates that Maven wrote into it, otherwise by its file."""
    for path in sorted(folder.glob("*.jar")):
        stem, _, version = path.stem.rpartition("-")
        group, name = "", stem
        with zipfile.ZipFile(path) as archive:
            coordinates = [n for n in archive.namelist() if n.endswith("/pom.properties")]
            if len(coordinates) == 1:
                text = archive.read(coordinates[0]).decode()
                found = dict(
                    line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")
                )
                group, name, version = found["groupId"].strip(), found["artifactId"].strip(), found["version"].strip()
        component = {"type": "library", "name": name, "version": version}
        if group:
            component |= {"group": group, "purl": f"pkg:maven/{group}/{name}@{version}"}
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        yield component | {"hashes": [{"alg": "SHA-256", "content": digest}]}


def bill(name: str, version: str, components: list[Component]) -> dict[str, Any]:
    """The whole document."""
    components = sorted(components, key=lambda c: (c.get("purl", ""), c["name"], c["version"]))
    for component in components:
        component["bom-ref"] = component.get("purl") or f"{component['name']}@{component['version']}"
        if not component.get("properties", True):
            del component["properties"]
    content = json.dumps(components, sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{name}@{version}:{content}')}",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "name": name, "version": version, "bom-ref": f"{name}@{version}"}
        },
        "components": components,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--version", required=True)
    parser.add_argument("--packages", type=Path, action="append", default=[])
    parser.add_argument("--debian", type=Path)
    parser.add_argument("--debian-from", action="append", default=[])
    parser.add_argument("--jars", type=Path)
    arguments = parser.parse_args()
    components = [component for lock in arguments.packages for component in python_packages(lock)]
    components += debian_packages(arguments.debian) if arguments.debian else []
    for one in arguments.debian_from:
        name, status = one.split("=", 1)
        components += [c for c in debian_packages(Path(status)) if c["name"] == name]
    components += jars(arguments.jars) if arguments.jars else []
    print(json.dumps(bill(arguments.name, arguments.version, components), indent=1))  # noqa: T201 - its output


if __name__ == "__main__":
    main()
