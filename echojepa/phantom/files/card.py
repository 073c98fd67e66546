"""The data card: what a phantom data set is, what it is for, and what it is not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from echojepa.phantom.config import VERSION, PhantomConfig

_TEXT = """# Data card: phantom echocardiograms, version {version}, seed {seed}

**What it is.** {clips} clips of {studies} studies of {patients} invented patients: a beating
three-dimensional heart of known measures, cut by image planes and filmed by synthetic scanners. No
patient's data went into it, and none can be got out of it.

**Labels** are measured on the geometry, not on the pictures: ejection fraction (`lvef`, percent),
end-diastolic and end-systolic volume (`edv_ml`, `esv_ml`), heart rate (`heart_rate`, per minute),
wall thickness (`wall_cm`), tricuspid annular plane systolic excursion (`tapse_cm`), right
ventricular systolic pressure (`rvsp`, mmHg: half in the septum's flattening, half in the right
ventricle's size, so no single view gives it), view, population, vendor, rhythm and wall motion.
They are those of the patient's usual beat; the beats of a clip vary around it, by a few percent in
sinus rhythm and by a fifth in atrial fibrillation.

**Noise** (three knobs): speckle keeps its pattern for {decorrelation} s in resting muscle, its
contrast is {contrast}, electronic noise is {noise} of muscle's echo at the far end.

**Splits** are by patient.{held_out}

**Files** are {formats}; `manifest.parquet` has one row per clip with its labels, `phantom.json` the
settings: `echojepa phantom` makes the same bytes from them again. Made by a program under the
Apache License 2.0; its makers claim no right in the data.

**Made for** trying out, timing and testing methods end to end, and for questions whose answer must
be known: what an encoder keeps of anatomy and drops of speckle. **Not made for** any statement
about patients. Anatomy is simplified (ellipsoidal chambers, leaflets that swing as one, no
trabeculae or chordae, no pathology but the above) and scan lines do not refract.

| | clips |
|---|---|
{table}
"""

_FORMATS = {".avi": "Motion JPEG in AVI", ".dcm": "multi-frame DICOM", ".mp4": "H.264 in MP4"}


def card(config: PhantomConfig, table: pa.Table) -> str:
    """Markdown about the data set that a manifest lists."""
    lines = []
    for column in ("split", "view", "population", "vendor", "rhythm", "wall_motion", "doppler"):
        counts = pc.value_counts(table[column]).to_pylist()
        for entry in sorted(counts, key=lambda entry: str(entry["values"])):
            lines.append(f"| {column}: {entry['values']} | {entry['counts']} |")
    held_out = ""
    if config.held_out_vendor in pc.unique(table["vendor"]).to_pylist():
        held_out = f" All of vendor {config.held_out_vendor} is in the split test, and only there."
    suffixes = sorted({Path(uri).suffix for uri in table["uri"].to_pylist()})
    return _TEXT.format(
        formats=", ".join(_FORMATS[suffix] for suffix in suffixes),
        version=VERSION,
        seed=config.seed,
        clips=len(table),
        studies=pc.count_distinct(table["study_id"]).as_py(),
        patients=pc.count_distinct(table["patient_id"]).as_py(),
        decorrelation=config.decorrelation_seconds,
        contrast=config.speckle_contrast,
        noise=config.electronic_noise,
        held_out=held_out,
        table="\n".join(lines),
    )
