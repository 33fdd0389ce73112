"""launch/gke.sh and gke.yaml, with stand-ins for kubectl, xpk and docker."""

import shlex

import pytest
import yaml

from rsclip_jax.io.commit import git_commit
from tests.conftest import REPO

SETTINGS = {"IMAGE": "host/rsclip:1", "CONFIG": "align_sar", "WORKDIR": "gs://b/x"}
FLAGS = ("--config.mesh=(-1, 2)", '--config.note=it\'s "$HOME" \\ a|b & c')
COMMAND = [
    "python",
    "-m",
    "rsclip_jax.main",
    "--config=align_sar",
    "--workdir=gs://b/x",
]


def apply(stubs, *flags, **settings) -> dict:
    """The JobSet that kubectl is given."""
    stubs.add("kubectl", 'cat > "$STUBS/applied"')
    done = stubs.run("gke.sh", "apply", *flags, **{**SETTINGS, **settings})
    assert done.returncode == 0, done.stderr
    assert stubs.calls() == [["kubectl", "apply", "-f", "-"]]
    return yaml.safe_load((stubs.folder / "applied").read_text())


def pod_of(jobset: dict) -> dict:
    (job,) = jobset["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]["spec"]


def test_the_jobset_is_one_indexed_job_with_a_pod_for_each_host(stubs):
    jobset = apply(stubs, TOPOLOGY="4x4", NAME="me")
    assert (jobset["apiVersion"], jobset["kind"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
    )
    assert jobset["metadata"]["name"] == "me"
    assert jobset["spec"]["failurePolicy"] == {"maxRestarts": 50}
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert (job["replicas"], spec["parallelism"], spec["completions"]) == (1, 4, 4)
    assert (spec["completionMode"], spec["backoffLimit"]) == ("Indexed", 0)


def test_the_pods_run_the_image_on_the_slices_nodes(stubs):
    pod = pod_of(apply(stubs, *FLAGS, ACCELERATOR="tpu7x", SERVICE_ACCOUNT="writer"))
    (container,) = pod["containers"]
    assert container["image"] == "host/rsclip:1"
    assert container["command"] == [*COMMAND, *FLAGS]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu7x",
        "cloud.google.com/gke-tpu-topology": "2x4",
    }
    assert pod["restartPolicy"] == "Never"
    assert pod["serviceAccountName"] == "writer"
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_spot_nodes_are_asked_for_by_their_label(stubs):
    pod = pod_of(apply(stubs, SPOT="yes"))
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    keys = {toleration["key"] for toleration in pod["tolerations"]}
    assert keys == {"google.com/tpu", "cloud.google.com/gke-spot"}


@pytest.mark.parametrize(
    ("topology", "chips", "hosts"),
    [("2x4", "4", 2), ("2x4", "8", 1), ("2x2x4", "4", 4), ("16x16", "4", 64)],
)
def test_hosts_are_the_chips_by_those_of_a_node(stubs, topology, chips, hosts):
    jobset = apply(stubs, TOPOLOGY=topology, CHIPS=chips)
    spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert spec["parallelism"] == hosts
    (container,) = pod_of(jobset)["containers"]
    assert container["resources"]["limits"]["google.com/tpu"] == int(chips)


def test_the_file_itself_is_yaml_whose_every_gap_is_filled(stubs):
    text = (REPO / "launch" / "gke.yaml").read_text()
    assert yaml.safe_load(text)["kind"] == "JobSet"
    apply(stubs, SPOT="yes")
    assert "${" not in (stubs.folder / "applied").read_text()


def test_a_dry_run_prints_what_is_applied(stubs):
    applied = apply(stubs, *FLAGS)
    words = ("apply", "--dry-run", *FLAGS)
    done = stubs.run("gke.sh", *words, **SETTINGS)
    assert len(stubs.calls()) == 1  # of the run before
    first, *lines, last = done.stdout.splitlines()
    assert (first, last) == ("kubectl apply -f - <<'END'", "END")
    assert yaml.safe_load("\n".join(lines)) == applied


def test_xpk_starts_the_same_command(stubs):
    stubs.add("xpk")
    more = {"CLUSTER": "c", "ZONE": "z", "PROJECT": "p", "TPU_TYPE": "tpu7x-32"}
    done = stubs.run("gke.sh", "xpk", *FLAGS, **more, **SETTINGS)
    assert done.returncode == 0, done.stderr
    (call,) = stubs.calls()
    assert call[:3] == ["xpk", "workload", "create"]
    flags = dict(word.split("=", 1) for word in call[3:])
    command = shlex.split(flags.pop("--command"))
    assert command == ["exec", *COMMAND, *FLAGS]
    assert flags == {
        "--workload": "rsclip",
        "--tpu-type": "tpu7x-32",
        "--num-slices": "1",
        "--docker-image": "host/rsclip:1",
        "--max-restarts": "50",
        "--termination-grace-period-seconds": "120",
        "--cluster": "c",
        "--project": "p",
        "--zone": "z",
    }


def test_the_head_of_the_yaml_has_xpks_command_line(stubs):
    text = (REPO / "launch" / "gke.yaml").read_text()
    lines = [line[1:] for line in text.splitlines() if line.startswith("#")]
    start = next(i for i, line in enumerate(lines) if line.strip().startswith("xpk "))
    said = shlex.split("\n".join(lines[start:]).replace("\\\n", ""))
    stubs.add("xpk")
    names = {"CLUSTER": "CLUSTER", "ZONE": "ZONE", "PROJECT": "PROJECT"}
    place = {"IMAGE": "IMAGE", "CONFIG": "align_sar", "WORKDIR": "gs://BUCKET/PATH"}
    stubs.run("gke.sh", "xpk", **names, **place)
    assert stubs.calls() == [said]


def test_the_image_has_the_clone_and_is_pushed(stubs):
    stubs.add("docker")
    assert stubs.run("gke.sh", "image", **SETTINGS).returncode == 0
    build, push = stubs.calls()
    file = str(REPO / "launch" / "Dockerfile")
    *words, commit, folder = build[1:]
    assert words == ["build", "--tag", "host/rsclip:1", "--file", file, "--build-arg"]
    assert (commit, folder) == (f"COMMIT={git_commit()}", str(REPO))
    assert push[1:] == ["push", "host/rsclip:1"]


def test_follow_and_delete(stubs):
    stubs.add("kubectl")
    stubs.add("xpk")
    assert stubs.run("gke.sh", "follow", **SETTINGS).returncode == 0
    assert stubs.run("gke.sh", "delete", **SETTINGS).returncode == 0
    assert stubs.run("gke.sh", "delete", CLUSTER="c", **SETTINGS).returncode == 0
    follow, by_kubectl, by_xpk = stubs.calls()
    assert follow[1:3] == ["logs", "--follow"]
    index = "batch.kubernetes.io/job-completion-index=0"
    assert follow[-1] == f"--selector=jobset.sigs.k8s.io/jobset-name=rsclip,{index}"
    assert by_kubectl[1:] == ["delete", "jobset", "rsclip"]
    assert by_xpk[1:3] == ["workload", "delete"]


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        ((), {}, "say what to do: image, apply"),
        (("start",), {}, "there is no 'start': image, apply"),
        (("apply",), {"IMAGE": ""}, "set IMAGE"),
        (("apply",), {"CONFIG": ""}, "set CONFIG"),
        (("xpk",), {"WORKDIR": ""}, "set WORKDIR"),
        (("apply",), {"WORKDIR": "runs/x"}, "WORKDIR=runs/x is a folder of each pod's"),
        (("xpk",), {}, "set CLUSTER"),
        (("xpk",), {"CLUSTER": "c"}, "there is no xpk on PATH: pip install xpk"),
        (("apply",), {}, "there is no kubectl on PATH: install kubectl"),
        (("image",), {}, "there is no docker on PATH: install Docker"),
        (
            ("apply", "--dry-run"),
            {"TOPOLOGY": "big"},
            "TOPOLOGY=big: set it to numbers",
        ),
        (
            ("apply", "--dry-run"),
            {"TOPOLOGY": "1x1"},
            "has 1 chips, which are no whole",
        ),
        (("apply",), {"CHIPS": "0"}, "CHIPS=0: set CHIPS to 1 or more"),
        (("apply",), {"NAME": "My_run"}, "NAME=My_run: Kubernetes takes lower-case"),
        (("apply",), {"SPOT": "true"}, "SPOT=true: set it to yes or no"),
        (("delete", "--config.a=1"), {}, "delete takes no --config.a=1"),
    ],
)
def test_what_is_wrong_is_named(stubs, words, settings, said):
    done = stubs.run("gke.sh", *words, **{**SETTINGS, **settings})
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_an_error_of_kubectl_is_the_scripts(stubs):
    stubs.add("kubectl", "cat > /dev/null; exit 4")
    assert stubs.run("gke.sh", "apply", **SETTINGS).returncode == 4
