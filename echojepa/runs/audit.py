"""`echojepa audit RUN`: everything the audit needs, read from the run folder alone."""

from __future__ import annotations

from echojepa.config import validate
from echojepa.data.stream import DataConfig
from echojepa.errors import ManifestError, StorageError
from echojepa.runs.checkpoint import newest_valid, step_of
from echojepa.runs.folder import RunFolder
from echojepa.runs.rollback import seeds_of
from echojepa.train.record import AuditReport, Expected, audit


def audit_run(folder: RunFolder) -> AuditReport:
    """Prove from its recorded indices that a run lost and doubled no sample.

    Raises:
        StorageError: not a run folder, or a run that never started.
        ManifestError: the manifest is gone, or no longer the one of the run.
    """
    identity, tree = folder.identity(), folder.config_tree()
    attempts = folder.attempts()
    if not attempts:
        raise StorageError("the run has never started", "Start it first.", str(folder.path))
    data = validate(tree["data"], DataConfig, str(folder.path))
    clips = data.clips()
    if clips.fingerprint != identity["manifest_fingerprint"]:
        raise ManifestError(
            "the manifest has changed since the run", "Restore it to audit.", data.manifest
        )
    expected = Expected(
        clips=clips,
        seeds=seeds_of(folder, tree["seed"]),
        global_batch=tree["loop"]["global_batch"],
        origin=attempts[-1]["origin"],
    )
    starts = {attempt["attempt"]: attempt["start_step"] for attempt in attempts}
    report = audit(folder.samples, starts, expected)
    reached = report.attempts[-1]["stop"] if report.attempts else 0
    newest, _ = newest_valid(folder.checkpoints)
    saved = step_of(newest) if newest else 0
    if reached < saved:
        found = f"the record ends at step {reached}, and there is a checkpoint of step {saved}"
        report.findings.append(found)
    return report
