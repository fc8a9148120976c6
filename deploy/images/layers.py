"""What images weigh in buildah's store, shared layers counted once: `layers.py IMAGE...` prints a line for each and the total.

Columns: image, whole size, size of the layers that no image before it in the list has; in MiB, uncompressed.
"""

import json
import subprocess
import sys
from pathlib import Path


def ask(*command: str) -> dict:
    """The JSON that a command prints."""
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603 - buildah


def main() -> None:
    """See the module."""
    root = Path(ask("buildah", "info")["store"]["GraphRoot"])
    layers = json.loads(next(root.glob("*-layers/layers.json")).read_text())
    sizes = {layer["diff-digest"]: layer["diff-size"] for layer in layers if "diff-digest" in layer}
    seen: set[str] = set()
    for image in sys.argv[1:]:
        digests = ask("buildah", "inspect", "--type", "image", image)["OCIv1"]["rootfs"]["diff_ids"]
        whole = sum(sizes[d] for d in digests)
        new = sum(sizes[d] for d in set(digests) - seen)
        seen |= set(digests)
        print(image, f"{whole / 2**20:.0f}", f"{new / 2**20:.1f}")  # noqa: T201 - its output
    print("total", f"{sum(sizes[d] for d in seen) / 2**20:.0f}", "")  # noqa: T201


if __name__ == "__main__":
    main()
