"""A real endpoint on this machine, named by the variables by which a person names it."""

import uuid

import pytest
from upath import UPath


@pytest.fixture(scope="session")
def _server():
    pytest.importorskip("moto", reason="`make s3` installs it")
    import s3fs

    from recsys_pipeline_tests.s3.server import Server

    with pytest.MonkeyPatch.context() as patch, Server().running() as server:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # Whatever whoever runs the tests has set up for the real one.
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, "/dev/null")
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def server(_server):
    yield _server
    _server.before = _server.after = lambda *_: None


@pytest.fixture
def bucket(server):  # noqa: ARG001  # it serves it
    """A bucket of its own."""
    bucket = UPath(f"s3://{uuid.uuid4().hex}")
    bucket.mkdir()
    return bucket
