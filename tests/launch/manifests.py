#!/usr/bin/env python3
"""Validates what `emm sweep k8s` and `emm sweep sky` write against the schemas that their engines bring.

    python tests/launch/manifests.py target/release/emm          Kubernetes: needs kubernetes-validate (PyPI)
    python tests/launch/manifests.py target/release/emm --sky    SkyPilot: needs skypilot (PyPI)
"""

import json
import os
import subprocess
import sys

import yaml

BUCKET = [
    "--pull", "aws s3 sync s3://bucket/runs/{run} {dir}",
    "--push", "aws s3 sync --delete {dir} s3://bucket/runs/{run}",
]
STUDY = ["table3", "--scale", "tiny", "--device"]
K8S = [
    ["cpu", "--image", "emm:1", "--claim", "shared"],
    ["cuda", "--image", "registry.example/emm:1", "--claim", "shared", "--cap", "3", "--queue", "gpus", "--threads", "8"],
    ["cuda", "--image", "emm:1", "--name", "on", "--only", "labels=true labels", *BUCKET, "--push-every", "10m"],
]
SKY = [
    ["cpu", "--volume", "shared", "--on-demand"],
    ["cuda", "--gpu", "H100", "--image", "registry.example/emm:1", "--threads", "8", *BUCKET],
    ["cuda", "--gpu", "A100-80GB:1", "--only", "labels=true labels", *BUCKET],
]


def written(emm, engine, flags, key):
    """The text that is printed for people; it has to say what the JSON says."""
    command = [emm, "sweep", engine, *STUDY, *flags]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    value = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True).stdout)[key]
    assert yaml.safe_load(text) == value, f"{command}: the YAML and the JSON differ"
    return text, value


def kubernetes(emm):
    import kubernetes_validate

    versions = kubernetes_validate.latest_version(), "1.31"
    for flags in K8S:
        _, job = written(emm, "k8s", flags, "manifest")
        for version in versions:
            kubernetes_validate.validate(job, version, strict=True)
        # What is misspelt is found.
        job["spec"]["backoffLimitPerIndx"] = 1
        try:
            kubernetes_validate.validate(job, versions[0], strict=True)
        except kubernetes_validate.ValidationError:
            continue
        raise AssertionError("a field that no Job has passes")
    print(f"{len(K8S)} jobs fit the schemas of Kubernetes {' and '.join(versions)}")


def skypilot(emm):
    import sky

    for flags in SKY:
        text, _ = written(emm, "sky", flags, "task")
        task = sky.Task.from_yaml_config(yaml.safe_load(text), env_overrides=[("INDEX", "3")])
        resources = next(iter(task.resources))
        assert resources.job_recovery["recover_on_exit_codes"] == [75], resources.job_recovery
    print(f"{len(SKY)} tasks are read by SkyPilot {sky.__version__}")


if __name__ == "__main__":
    (skypilot if "--sky" in sys.argv else kubernetes)(os.path.abspath(sys.argv[1]))
