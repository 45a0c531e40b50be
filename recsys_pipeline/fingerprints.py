"""What an asset was made with, as tags of its materialization: digests, to be compared.

Dagster itself records the data versions of the inputs and the version of the code. What it does not record
is the configuration that the step had, and the files outside the warehouse that it read.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

CONFIGURATION_TAG = "recsys_pipeline/configuration"
SOURCE_TAG = "recsys_pipeline/source"
# Before the name of an input: the state of it.
INPUT_TAG = "recsys_pipeline/input."
CONTENT_TAG = "recsys_pipeline/source_content"

# Where an asset is kept, and how long it waits for it, is not what it is made with.
_NO_CONFIGURATION = {"warehouse"}


def digest(content: Any) -> str:
    """Of what can be written as JSON; equal content has an equal digest, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def configuration_of(arguments: Mapping[str, Any]) -> str:
    """The digest of the configuration among the arguments of a step: its `config` and its resources.

    Args:
        arguments: by name; tables, and the warehouse, count for nothing.
    """
    found = {
        name: value.model_dump(mode="json")
        for name, value in arguments.items()
        if isinstance(value, BaseModel) and name not in _NO_CONFIGURATION
    }
    return digest(found)
