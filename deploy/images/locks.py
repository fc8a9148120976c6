"""What an image takes from the lock files. Runs inside the build, on the standard library alone.

    locks.py common REQUIREMENTS              the packages that stand in the lock of every Python image, hashes included
    locks.py own REQUIREMENTS IMAGE           those that only this image's lock has beside them
    locks.py installed PYPROJECT FOLDER       writes the project's dist-info: importlib.metadata and scanners read it

The common packages are one layer, stored once for all images.
"""

import sys
import tomllib
from pathlib import Path

IMAGES = ("gateway", "ratelimiter", "cache", "router", "dispatcher", "worker", "operator")


def packages(lock: Path) -> dict[str, str]:
    """`name==version` of each package in a lock to its entry with markers and hashes."""
    found: dict[str, list[str]] = {}
    entry: list[str] = []
    for line in lock.read_text().splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line.startswith(" "):
            entry = found.setdefault(line.removesuffix("\\").split(";")[0].strip(), [])
        entry.append(line.strip().removesuffix("\\").strip())
    return {name: " \\\n    ".join(lines) + "\n" for name, lines in found.items()}


def common(folder: Path) -> dict[str, str]:
    """The packages that all images have in the same version."""
    locks = [packages(folder / f"{image}.lock") for image in IMAGES]
    return {name: entry for name, entry in locks[0].items() if all(name in lock for lock in locks)}


def own(folder: Path, image: str) -> dict[str, str]:
    """The packages that an image has beside those of all."""
    shared = common(folder)
    return {name: entry for name, entry in packages(folder / f"{image}.lock").items() if name not in shared}


def write_dist_info(pyproject: Path, site: Path) -> None:
    """Name and version of the project, as an installed wheel would have them."""
    project = tomllib.loads(pyproject.read_text())["project"]
    info = site / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\nSummary: {project['description']}\n"
        f"License: {project['license']}\n"
    )
    (info / "INSTALLER").write_text("deploy/images\n")


def main() -> None:
    """See the module."""
    match sys.argv[1:]:
        case ["common", folder]:
            sys.stdout.writelines(common(Path(folder)).values())
        case ["own", folder, image]:
            sys.stdout.writelines(own(Path(folder), image).values())
        case ["installed", pyproject, site]:
            write_dist_info(Path(pyproject), Path(site))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
