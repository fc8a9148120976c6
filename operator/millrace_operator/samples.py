"""The samples of an installation for trying out: created once, then they belong to people.

Custom resources cannot be part of the Helm release that brings their definitions, so the operator creates them, when the
definitions are served. What exists already is left as it is, and what a person deleted does not come back: a ConfigMap of the
release remembers what was created.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from millrace_operator.core.manifests import Manifest, subject_of
from millrace_operator.core.schema import KINDS
from millrace_operator.folders import read_manifests
from millrace_operator.ports import ApiError, Cluster
from services.chassis.backoff import backoff

log = logging.getLogger(__name__)

ANNOTATION: Final = "millrace.dev/sample"
RETRY_S: Final = (0.5, 5.0)
CONFLICT: Final = 409


class Samples:
    """Creates what the manifests in a folder say, in one namespace, while `leading`; `ledger` names the ConfigMap."""

    def __init__(
        self, folder: Path, cluster: Cluster, *, namespace: str, ledger: str, leading: Callable[[], bool]
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._cluster = cluster
        self._namespace = namespace
        self._leading = leading
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Until all were created once."""
        manifests = self._read()
        for delay in backoff(*RETRY_S):
            if self._leading() and await self._all(manifests):
                return
            await asyncio.sleep(delay)

    def _read(self) -> list[Manifest]:
        manifests, flaws = read_manifests([self._folder])
        for flaw in flaws:
            log.warning("sample: %s", flaw)
        good = []
        for manifest in manifests:
            if isinstance(manifest.document, dict) and manifest.document.get("kind") in KINDS:
                good.append(manifest)
            else:
                log.warning("sample: %s#%d is none of %s", manifest.file, manifest.position, ", ".join(KINDS))
        return good

    async def _all(self, manifests: list[Manifest]) -> bool:
        """Try each once; was every one created, now or before?"""
        kinds = {manifest.document["kind"] for manifest in manifests} - {"Secret"}
        try:
            missing = kinds - (await self._cluster.digests()).keys()
            ledger = await self._cluster.get("ConfigMap", (self._namespace, self._ledger))
        except ApiError as reason:
            self._say("samples", str(reason))
            return False
        if missing:
            self._say("samples", f"the cluster does not serve {', '.join(sorted(missing))} yet")
            return False
        created: dict[str, str] = dict((ledger or {}).get("data") or {})
        done = True
        for manifest in manifests:
            subject = subject_of(manifest.document)
            entry = subject.replace("/", ".")
            if entry in created:
                continue
            try:
                await self._create(manifest.document)
                await self._remember(created | {entry: ""})
                created[entry] = ""
            except ApiError as reason:  # the others may go
                self._say(f"sample {subject}", str(reason))
                done = False
        return done

    async def _create(self, document: Mapping[str, Any]) -> None:
        metadata = dict(document.get("metadata") or {})
        metadata.setdefault("namespace", self._namespace)
        metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION: "true"}
        try:
            await self._cluster.create({**document, "metadata": metadata})
            log.info("sample created: %s", subject_of(document))
        except ApiError as refused:
            if refused.status != CONFLICT:  # there already: somebody made it, or we before we could remember
                raise

    async def _remember(self, created: Mapping[str, str]) -> None:
        await self._cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": self._ledger, "namespace": self._namespace},
                "data": dict(created),
            }
        )

    def _say(self, subject: str, reason: str) -> None:
        """Once for each reason."""
        if self._said.get(subject) != reason:
            self._said[subject] = reason
            log.warning("%s: %s; tried again", subject, reason)
