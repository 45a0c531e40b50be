"""Paths and URLs that people configure: they are shown in the UI, in logs and in metadata."""

import re

# A password before the host, in any link of a chain such as simplecache::s3://...
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")
# A user name alone is a token where there are no user names; abfs://container@account is none.
_TOKEN = re.compile(r"\b(https?|ftps?|sftp|git)://[^/@\s]+@", re.IGNORECASE)
_PARAMETER = re.compile(r"[?&;][^=&;]*(pass|pwd|secret|token|sig|key|credential)[^=&;]*=[^&;]", re.IGNORECASE)


def checked_location(text: str) -> str:
    """`text`, if it is a location without secrets.

    Raises:
        ValueError: it is empty or carries a secret; the message does not show it.
    """
    if not text.strip():
        raise ValueError("the path is empty")
    if "\0" in text:
        raise ValueError("the path holds a NUL byte")
    if _PASSWORD.search(text) or _TOKEN.search(text) or _PARAMETER.search(text):
        raise ValueError(
            "the URL holds a password or key, which would show in the UI and in logs; leave it out and "
            "give the credentials by the environment variables of the object store"
        )
    return text
