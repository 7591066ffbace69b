"""Reads a run's folder of `emm train --tensorboard` with TensorBoard's own reader and compares it with the run's files.

    pip install tensorboard
    python tests/tensorboard_reader.py DIR/RUN RUN_DIRECTORY
"""

import csv
import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


def main(board, run):
    shown = EventAccumulator(str(board), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = shown.Tags()
    for tag in tags["scalars"]:
        steps = [e.step for e in shown.Scalars(tag)]
        print(f"{tag:45} {len(steps):5} values, steps {steps[0]} to {steps[-1]}")
        assert steps == sorted(set(steps)), f"{tag}: {steps}"
    rows = list(csv.DictReader((run / "scores.csv").open()))
    for tag, column in {
        "memorization/ratio": "ratio",
        "memorization/ratio, 95% from": "low",
        "memorization/ratio, 95% to": "high",
        "memorization/mean distance to the nearest": "mean_d1",
    }.items():
        values = [(e.step, e.value) for e in shown.Scalars(tag)]
        assert len(values) == len(rows), (tag, len(values), len(rows))
        for (step, value), row in zip(values, rows):
            assert step == int(row["step"]) and close(value, struct.unpack("f", struct.pack("f", float(row[column])))[0])
    lines = [json.loads(line) for line in (run / "stats.jsonl").open()]
    lines = {line["step"]: line["Loss/loss"] for line in lines if "Loss/loss" in line}
    losses = shown.Scalars("training/loss")
    assert losses and [e.step for e in losses] == sorted(lines), "steps of losses"
    assert all(abs(e.value - lines[e.step]["mean"]) <= 1e-6 * abs(e.value) for e in losses)
    for tag in tags["images"]:
        for image in shown.Images(tag):
            png = image.encoded_image_string
            assert png.startswith(b"\x89PNG") and struct.unpack(">II", png[16:24]) == (image.width, image.height)
        print(f"{tag:45} {len(shown.Images(tag)):5} images of {image.width}x{image.height}")
    print("as in scores.csv and stats.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
