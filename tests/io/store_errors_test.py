"""An error of an object store's client becomes one line, of a remote workdir alone."""

import pickle

import pytest
import tensorstore

from rsclip_jax import main
from rsclip_jax.io.paths import ObjectPath, as_path
from rsclip_jax.io.store_errors import StoreFailed, naming_store, store_failed
from rsclip_jax.main import run_to_end
from rsclip_jax.train import checkpoint, resume
from tests.helpers.runs import tiny_config


def refused_by_gcsfs():
    retry = pytest.importorskip("gcsfs.retry")
    retry.validate_response(403, b"no access", "b/bucket")


def broken_by_gcsfs():
    retry = pytest.importorskip("gcsfs.retry")
    raise retry.HttpError({"code": 401, "message": "Anonymous caller"})


def without_credentials():
    auth = pytest.importorskip("google.auth.exceptions")
    raise auth.DefaultCredentialsError("no default\ncredentials")


def without_network():
    aiohttp = pytest.importorskip("aiohttp")
    raise aiohttp.ClientConnectionError("Cannot connect to host")


def without_keys():
    exceptions = pytest.importorskip("botocore.exceptions")
    raise exceptions.NoCredentialsError()


def refused_by_tensorstore():
    """No server listens on port 9."""
    keys = {"type": "anonymous"}
    store = {"driver": "s3", "bucket": "bucket", "path": "a/", "aws_credentials": keys}
    store |= {"aws_region": "none", "endpoint": "http://127.0.0.1:9"}
    tries = {"s3_request_retries": {"max_retries": 1}}
    tensorstore.open(
        {"driver": "zarr", "kvstore": store}, context=tensorstore.Context(tries)
    ).result()


def saved_nowhere():
    try:
        refused_by_tensorstore()
    except ValueError as error:
        raise OSError("a checkpoint could not be written") from error


def written_nowhere():
    try:
        refused_by_gcsfs()
    except OSError as error:
        raise OSError(f"lock.json could not be written: {error}") from error


def explained():
    try:
        refused_by_gcsfs()
    except OSError as error:
        raise ValueError("a way out") from error


FAILURES = [
    (refused_by_gcsfs, "OSError: Forbidden: b/bucket no access"),
    (broken_by_gcsfs, "HttpError: Anonymous caller, 401"),
    (without_credentials, "DefaultCredentialsError: no default credentials"),
    (without_network, "ClientConnectionError: Cannot connect to host"),
    (without_keys, "NoCredentialsError: Unable to locate credentials"),
    (refused_by_tensorstore, "ValueError: ABORTED: Error opening"),
    (saved_nowhere, "OSError: a checkpoint could not be written"),
    (written_nowhere, "OSError: lock.json could not be written: Forbidden"),
]


@pytest.mark.parametrize(("fails", "said"), FAILURES)
def test_a_clients_error_names_the_workdir_and_what_to_check(fails, said):
    pytest.importorskip("gcsfs")
    path = as_path("gs://bucket/run")
    with pytest.raises(StoreFailed) as raised, naming_store(path):
        fails()
    text = str(raised.value)
    assert text.startswith(f"gs://bucket/run: the object store failed ({said}")
    assert "gcloud auth application-default login" in text
    assert "the bucket 'bucket' exists" in text
    assert len(text.splitlines()) == 1
    assert "tensorstore_spec" not in text


@pytest.mark.parametrize(("fails", "said"), FAILURES)
def test_on_a_local_workdir_it_stays_what_it_is(fails, said, tmp_path):
    word = said.partition(": ")[2].split()[0]
    with pytest.raises(Exception, match=word) as raised, naming_store(tmp_path):
        fails()
    assert not isinstance(raised.value, StoreFailed)


@pytest.mark.parametrize(
    "error",
    [
        OSError("train.csv is not there"),
        ValueError("not a workdir"),
        ValueError("DATA_LOSS: Error reading gs://b/run/d: checksum does not match"),
        TypeError("bug"),
    ],
)
def test_an_error_of_another_origin_stays_what_it_is(error):
    pytest.importorskip("gcsfs")
    with pytest.raises(type(error)) as raised, naming_store(as_path("gs://b/run")):
        raise error
    assert raised.value is error


def test_a_message_of_this_package_is_kept_where_a_client_led_to_it():
    pytest.importorskip("gcsfs")
    with pytest.raises(ValueError, match="a way out"), naming_store(as_path("gs://b")):
        explained()


@pytest.mark.parametrize("fails", [refused_by_gcsfs, refused_by_tensorstore])
def test_a_store_that_does_not_answer_is_no_damage(monkeypatch, fails):
    """Else a resumed run would move its newest checkpoint aside, and use an older."""
    pytest.importorskip("gcsfs")
    monkeypatch.setattr(ObjectPath, "is_dir", lambda path: True)
    monkeypatch.setattr(resume, "read_meta_item", lambda folder: {"step": 1})
    monkeypatch.setattr(resume, "read_position", lambda folder: {})
    monkeypatch.setattr(checkpoint, "read_tree", lambda folder: fails())
    for read in (resume.read_checkpoint, checkpoint.read_whole):
        with pytest.raises(StoreFailed, match=r"gs://b/1: the object store failed"):
            read(as_path("gs://b/1"))


def lost_by_gcsfs():
    retry = pytest.importorskip("gcsfs.retry")
    retry.validate_response(404, b"Not Found", "b/1/params/d")


def test_an_object_that_is_not_there_is_damage(monkeypatch):
    monkeypatch.setattr(checkpoint, "read_tree", lambda folder: lost_by_gcsfs())
    with pytest.raises(ValueError, match=r"gs://b/1 is damaged \(FileNotFoundError"):
        checkpoint.read_whole(as_path("gs://b/1"))


@pytest.mark.parametrize("made", ["init", "runs"])
def test_the_store_of_another_setting_is_named_for_a_local_workdir(
    tmp_path, monkeypatch, capsys, made
):
    pytest.importorskip("gcsfs")
    config = tiny_config(stages=())
    with config.unlocked():
        config[made] = ("w", "gs://other/run") if made == "runs" else "gs://other/run"
    monkeypatch.setattr(main, "run_stages", lambda *_: broken_by_gcsfs())
    assert run_to_end(config, tmp_path / "w") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: gs://other/run: the object store failed (HttpError")


def test_the_keys_of_another_store_are_named_and_the_error_can_be_sent():
    pytest.importorskip("s3fs")
    error = store_failed(as_path("s3://b/x"), OSError())
    assert "AWS_ACCESS_KEY_ID" in str(error)
    assert "(OSError: no message)" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("method", ["exists", "write_bytes"])
def test_a_run_ends_with_one_line_and_asks_no_more(monkeypatch, capsys, method):
    """exists: the first question; write_bytes: a bucket that can only be read."""
    pytest.importorskip("gcsfs")
    asked = []

    def fail(path, *_):
        asked.append(str(path))
        broken_by_gcsfs()

    for name in ("exists", "is_dir"):
        monkeypatch.setattr(ObjectPath, name, lambda path: False)
    monkeypatch.setattr(ObjectPath, "read_bytes", missing)
    monkeypatch.setattr(ObjectPath, method, fail)
    monkeypatch.setattr(ObjectPath, "upload", fail)
    workdir = as_path("gs://bucket/run")
    assert run_to_end(tiny_config(stages=()), workdir) == 1
    out, err = capsys.readouterr()
    assert out == "gs://bucket/run: reaching the object store ...\n"
    (line,) = err.splitlines()
    assert line.startswith("error: gs://bucket/run: the object store failed (HttpError")
    assert len(asked) == 1  # error.txt would be a second


def missing(path):
    raise FileNotFoundError(path)
