"""The model card, as text for people and as the facts that it was rendered from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsys_pipeline.core.lineage import Lineage


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        text: Markdown.
        facts: JSON.
        lineage: where it comes from.
    """

    text: str
    facts: Mapping[str, Any]
    lineage: Lineage
