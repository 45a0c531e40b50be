"""An object store as S3 is one: it has no folders, so that none can be made and none be removed."""

import uuid

from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath


def new_bucket(monkeypatch):
    def refuse(_, path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(MemoryFileSystem, "mkdir", lambda *_, **__: None)
    monkeypatch.setattr(MemoryFileSystem, "rmdir", refuse)
    return UPath(f"memory://{uuid.uuid4().hex}")
