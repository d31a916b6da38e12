"""The command line as a person meets it: documents, exit codes, sentences."""

import csv
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ravl import summary
from ravl.cli import main
from ravl.errors import ConfigError
from ravl.ledger import Ledger
from ravl.progress import job_row
from ravl.tables import Step
from tests.models import small_clip
from tests.worlds import COLOURS, colour_folder, digit_folder

ROOT = Path(__file__).parents[1]
EXEMPLARS = 10


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return digit_folder(tmp_path_factory.mktemp("digits"), 400, seed=3)[0]


@pytest.fixture(scope="module")
def found(workspace, images):
    """The document of `ravl discover --json`, from a process of its own."""
    command = [sys.executable, "-m", "ravl", "discover", "--images", str(images), "--model", "demo", "--json"]
    command += ["--workspace", str(workspace), "--name", "digits", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert "Embedding regions" in done.stderr
    return json.loads(done.stdout)  # one document and nothing else


def call(capsys, *arguments):
    code = main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_discover_prints_what_was_promised(found):
    assert found["n_images"] == 400
    assert found["n_regions"] == 1600
    assert 0 < found["accuracy"] < 1
    assert 0 <= found["noise_share"] <= 1
    assert found["worst_group"]["accuracy"] <= found["accuracy"]
    assert found["worst_group"]["n"] >= 10
    assert set(found["seconds"]) >= {
        "regions",
        "embeddings",
        "zero_shot",
        "clusters",
        "features",
        "exemplars",
        "projection",
    }
    first = found["features"][0]
    assert first["pull_class"] == "nine"
    assert first["passes"] is True
    assert len(first["exemplars"]) == EXEMPLARS
    assert set(first["exemplars"][0]) == {"image", "box", "contribution"}
    keys = {"feature", "pull_class", "influence", "gap", "n_regions", "n_images", "passes", "exemplars"}
    assert all(set(feature) >= keys for feature in found["features"])


def test_show_prints_the_same_again(capsys, workspace, found):
    code, out, _ = call(capsys, "show", "--run", "digits", "--workspace", workspace, "--json")
    assert code == 0
    assert json.loads(out) == found


def test_verdict_export_and_mitigate(capsys, workspace, images, found, tmp_path):
    run, feature = found["run"], found["features"][0]["feature"]
    common = ("--run", run, "--workspace", workspace)
    code, _, err = call(capsys, "mitigate", *common, "--images", images, "--steps", 2)
    assert code == 2
    assert "at least one feature must be confirmed" in err

    decide = ("verdict", *common, "--feature", feature, "--reviewer", "Dr. A. Turing")
    assert call(capsys, *decide, "--decision", "unsure")[0] == 0
    code, out, _ = call(
        capsys, *decide, "--decision", "spurious", "--name", "red square", "--note", "not ink", "--json"
    )
    assert code == 0
    assert json.loads(out)["decision"] == "spurious"
    assert len(Ledger(workspace).history(run, feature)) == 2

    code, _, _ = call(capsys, "export", *common, "--format", "json", "--out", tmp_path / "list.json")
    assert code == 0
    document = json.loads((tmp_path / "list.json").read_text())
    (confirmed,) = document["features"]
    assert confirmed["name"] == "red square"
    assert confirmed["reviewer"] == "Dr. A. Turing"
    assert len(confirmed["regions"]) == found["features"][0]["n_regions"]
    assert call(capsys, "export", *common, "--format", "csv", "--out", tmp_path / "list.csv")[0] == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "list.csv").read_text())))
    assert len(rows) == len(confirmed["regions"])

    tune = ("mitigate", *common, "--images", images, "--steps", 3, "--batch-size", 16, "--name", "short", "--json")
    code, out, err = call(capsys, *tune, "--device", "cpu")
    assert code == 0, err
    result = json.loads(out)
    part = result["reaudit"]
    assert part["accuracy"]["before"]["n"] == part["accuracy"]["after"]["n"] == 400
    assert (workspace / "runs" / part["run"] / "origin.json").exists()
    for when in ("before", "after"):
        assert {"overall", "worst_group", "per_class", "per_feature"} <= set(result[when])
        assert set(result[when]["worst_group"]) == {"name", "accuracy", "n"}
        assert set(result[when]["per_feature"]["red square"]) == {"with", "without"}
    assert result["before"]["overall"] == pytest.approx(found["accuracy"], abs=0.005)
    assert (Path(result["model"]) / "model.safetensors").exists()
    assert result["seconds"] > 0
    assert json.loads(call(capsys, *tune, "--device", "cpu")[1]) == result  # finished: nothing is trained again

    code, _, err = call(capsys, *tune, "--steps", 5, "--device", "cpu")
    assert code == 2
    assert "--name must be new when settings change" in err

    again = (
        "discover",
        "--images",
        images,
        "--model",
        result["model"],
        "--workspace",
        workspace,
        "--name",
        "tuned",
        "--json",
    )
    assert json.loads(call(capsys, *again, "--device", "cpu")[1])["n_images"] == 400


# --- bad input: exit code 2 and one sentence -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--regions", "grid:0"), "k must lie in 1 .. 32"),
        (("--regions", "blobs"), "regions must be grid:K"),
        (("--template", "no place"), "a template must contain {} once"),
        (("--classes", "zero,one"), "'eight'"),
        (("--seed", "-1"), "seed must lie in 0"),
        (("--name", "../up"), "must be letters"),
        (("--device", "warp9"), "device must be"),
        (("--tau", "0"), "tau must lie in"),
        (("--images", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--model", "/nowhere/at/all"), "does not exist"),
        (("--regions", "grid:9", "--encoder", "tokens"), "tokens"),
    ],
)
def test_bad_options(capsys, images, tmp_path, arguments, sentence):
    good = ["discover", "--images", images, "--model", "demo", "--device", "cpu", "--workspace", tmp_path / "w"]
    code, out, err = call(capsys, *good, *arguments)
    assert code == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("ravl: ")
    assert sentence in last


def test_the_demo_is_audited_on_the_device(capsys, tmp_path, monkeypatch):
    asked = []

    def discover(images, **settings):
        asked.append(settings["device"])
        raise ConfigError("far enough.")

    monkeypatch.setattr("ravl.api.discover", discover)
    monkeypatch.setattr("ravl.planted.demos.Demo.write", lambda demo, workspace: workspace)
    for device in ((), ("--device", "cuda:1")):
        code, _, err = call(capsys, "demo", "--audit-only", "--workspace", tmp_path, *device)
        assert (code, "far enough" in err) == (2, True)
    assert asked == ["auto", "cuda:1"]


def test_a_check_of_images_has_no_model_and_so_no_device(capsys, images):
    with pytest.raises(SystemExit):
        call(capsys, "check", "--images", images, "--device", "cpu")
    assert "unrecognized arguments: --device" in capsys.readouterr().err


def test_a_workspace_that_is_a_file(capsys, images, tmp_path):
    (tmp_path / "w").write_text("")
    code, _, err = call(capsys, "discover", "--images", images, "--model", "demo", "--workspace", tmp_path / "w")
    assert code == 2
    assert "the workspace must be" in err


def test_unknown_run_and_feature(capsys, workspace, found):
    code, _, err = call(capsys, "show", "--run", "nothing", "--workspace", workspace)
    assert code == 2
    assert found["run"] in err
    common = ("--run", found["run"], "--workspace", workspace, "--reviewer", "A", "--decision", "core")
    code, _, err = call(capsys, "verdict", *common, "--feature", 999)
    assert code == 2
    assert "--feature must be one of" in err
    for features, sentence in (("1,x", "ids separated by commas"), ("998", "--features must be ids of")):
        command = ("mitigate", "--run", found["run"], "--workspace", workspace, "--images", "x", "--features", features)
        code, _, err = call(capsys, *command)
        assert code == 2
        assert sentence in err


def test_a_changed_model_is_not_compared_with_its_old_audit(capsys, images, tmp_path):
    """Weights that changed since the audit would make an unfair before and after."""
    model = small_clip(tmp_path / "model", tuple(COLOURS))
    pictures = colour_folder(tmp_path / "pictures", n=20)
    common = ("--workspace", tmp_path / "w", "--device", "cpu")
    code, out, _ = call(capsys, "discover", "--images", pictures, "--model", model, "--json", *common)
    assert code == 0
    run, feature = json.loads(out)["run"], json.loads(out)["features"][0]["feature"]
    small_clip(tmp_path / "model", tuple(COLOURS), layers=2)
    code, _, err = call(capsys, "mitigate", "--run", run, "--images", pictures, "--features", feature, *common)
    assert code == 2
    assert "has changed since" in err


def test_a_port_in_use(capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = call(capsys, "app", "--workspace", tmp_path, "--port", port, "--no-browser")
    assert code == 2
    assert f"port {port}" in err
    assert "--port" in err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "ravl.clinic.org"])
@pytest.mark.parametrize("command", ["app", "demo"])
def test_other_machines_are_kept_out_unless_that_is_accepted(capsys, tmp_path, monkeypatch, command, host):
    """Nothing is started, nothing is computed, no folder is made."""
    monkeypatch.setattr("ravl.serve.serve", None)
    code, out, err = call(capsys, command, "--workspace", tmp_path / "w", "--host", host, "--no-browser")
    assert (code, out) == (2, "")
    assert "there is no login" in err.replace("There", "there")
    assert "ssh -L 8501:127.0.0.1:8501" in err
    assert "--accept-no-login" in err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(("accept", "told"), [((), False), (("--accept-no-login",), True)])
def test_what_is_accepted_is_passed_on(capsys, tmp_path, monkeypatch, accept, told):
    served = []
    monkeypatch.setattr("ravl.serve.serve", lambda *given: served.append(given) or 0)
    host = "0.0.0.0" if told else "127.0.0.1"
    port = "59998"
    code, _, err = call(capsys, "app", "--workspace", tmp_path, "--host", host, "--port", port, "--no-browser", *accept)
    assert code == 0
    assert [given[1:] for given in served] == [(host, int(port), False, told)]
    assert ("can be reached from other machines" in err) is told


def test_doctor(capsys, tmp_path):
    code, out, _ = call(capsys, "doctor", "--workspace", tmp_path / "w", "--port", "59999", "--json")
    checks = json.loads(out)
    names = "python packages ravl device memory port workspace demo_models"
    assert {name.replace(" ", "_") for name in checks} == set(names.split())
    assert code == (0 if all(check["ok"] for check in checks.values()) else 1)
    assert "torch" in checks["packages"]["found"]
    facts = checks["device"]["facts"]
    assert facts["device"] in ("cpu", "cuda", "mps")
    assert 0 < facts["free"] <= facts["total"]


def test_an_unforeseen_fault_is_one_sentence_and_code_1(process):
    code = "import sys, ravl.cli, ravl.doctor; ravl.doctor.examine = lambda *_: 1 / 0; sys.argv = ['ravl', 'doctor']"
    with process(f"{code}; ravl.cli.entry()") as fault:
        _, err = fault.communicate(timeout=60)
    assert fault.returncode == 1
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err


# --- jobs ------------------------------------------------------------------------------------------


def test_a_job_owns_its_row_to_the_end(workspace, images, found):
    ledger = Ledger(workspace)
    arguments = ["discover", "--images", str(images), "--model", "demo", "--name", "digits", "--device", "cpu"]
    job = ledger.add_job("discover", "digits", arguments, "local")
    assert main([*arguments, "--workspace", str(workspace), "--job", str(job.id)]) == 0
    done = ledger.job(job.id)
    assert (done.status, done.run) == ("done", found["run"])
    assert done.pid == os.getpid()
    assert done.stage == "projection"

    bad = [*arguments[:2], "/nowhere/at/all", *arguments[3:]]
    job = ledger.add_job("discover", "bad", bad, "local")
    assert main([*bad, "--workspace", str(workspace), "--job", str(job.id)]) == 2
    failed = ledger.job(job.id)
    assert failed.status == "failed"
    assert "/nowhere/at/all" in failed.reason


def test_a_stage_that_goes_on_says_where_it_began(workspace):
    ledger = Ledger(workspace)
    job = ledger.add_job("mitigate", "x", [], "elsewhere")
    with job_row(ledger, job.id) as report:
        report(Step("training", 50, 130, {"loss": 1.0}))
        assert ledger.job(job.id).facts == {"loss": 1.0, "resumed_at": 50}
        report(Step("after", 0, 130))
        assert ledger.job(job.id).facts == {}
        report(Step("model", 1, 1))
        assert ledger.job(job.id).facts == {}


def test_a_terminated_job_is_cancelled(workspace, images):
    ledger = Ledger(workspace)
    arguments = ["discover", "--images", str(images), "--model", "demo", "--seed", "5", "--device", "cpu"]
    job = ledger.add_job("discover", "cut short", arguments, "local")
    command = [sys.executable, "-m", "ravl", *arguments, "--workspace", str(workspace), "--job", str(job.id)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Embedding" in line or "Clustering" in line:
                process.terminate()
                break
        _, errors = process.communicate(timeout=60)
    assert ledger.job(job.id).status == "cancelled"
    assert "Traceback" not in errors
    assert process.returncode == 1


def test_what_could_not_be_used_is_told_kind_by_kind():
    one = {"n_skipped": 1, "n_unseen": 1, "n_empty_folders": 1}
    assert summary._left_out(one) == [
        "1 image could not be read; the Overview page lists it",
        "1 image could not be read and cannot be shown; the given embeddings are used",
        "1 folder without images is no class",
    ]
    assert summary._left_out({"n_skipped": 2, "n_unseen": 0, "n_empty_folders": 3}) == [
        "2 images could not be read; the Overview page lists them",
        "3 folders without images are no classes",
    ]
    assert summary._left_out(dict.fromkeys(one, 0)) == []
