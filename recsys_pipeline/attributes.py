"""What the assets have in common beside what they make: owners, tags, and the version of their code."""

import ast
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dagster import AssetsDefinition, AssetSpec, map_asset_specs

_PACKAGE = Path(__file__).parent
_NAME = _PACKAGE.name
# What decides what an asset is. The rest of the package shows, starts and checks.
_ROOMS = ("assets", "core", "engines", "storage")
# Statements that import, in functions too. To parse whole modules takes ten times as long.
_IMPORT = re.compile(rf"^[ \t]*((?:from|import) {_NAME}\b(?:[^\n(]*\([^)]*\)|[^\n]*))", flags=re.MULTILINE)
_NAMED = re.compile(rf'"({_NAME}(?:\.\w+)+)"')

# For the search of the UI: `tag:stage=lists`.
_STAGES = {
    "events": ("raw_feedback", "feedback_strengths", "bm25_matrix"),
    "tuning": ("leave_one_out_split", "baselines", "grid_search_results"),
    "model": ("best_model", "evaluation", "model_card"),
    "lists": ("catalogue", "recommendations", "similar_items", "popular_items"),
    "release": ("release", "delivery", "mlflow_run"),
}


def with_attributes(assets: Iterable[Any], owners: Sequence[str]) -> list[AssetsDefinition]:
    """The assets with owners, the stage as a tag, and a version of their code.

    Args:
        assets: as their modules define them.
        owners: teams, such as team:recommendations, and addresses.
    """
    stages = {name: stage for stage, names in _STAGES.items() for name in names}
    assets = [each for each in assets if isinstance(each, AssetsDefinition)]
    modules = {spec.key: _module(asset) for asset in assets for spec in asset.specs}

    def described(spec: AssetSpec) -> AssetSpec:
        stage = stages.get(spec.key.to_user_string())
        return spec.replace_attributes(
            owners=list(owners),
            tags={**spec.tags, **({"stage": stage} if stage else {})},
            code_version=code_version(modules[spec.key]),
        )

    return [each for each in map_asset_specs(described, assets) if isinstance(each, AssetsDefinition)]


def _module(asset: AssetsDefinition) -> str:
    """Where the function of an asset is defined."""
    compute: Any = asset.op.compute_fn
    return str(compute.decorated_fn.__module__)


@cache
def code_version(module: str) -> str:
    """A hash of the sources of a module and of all that it imports of this package, as 12 hexadecimal digits.

    A change of how something is shown, checked or started changes no version, and neither does a change of
    what the module does not import.

    Args:
        module: its dotted name.
    """
    found = {module}
    left = [module]
    while left:
        for name in _imported(left.pop()) - found:
            found.add(name)
            left.append(name)
    digest = hashlib.sha256()
    for name in sorted(found):
        path = _path(name)
        assert path
        digest.update(f"{name}\n".encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


@cache
def _imported(module: str) -> frozenset[str]:
    """The modules of these rooms that a module imports, or starts by name in a process of its own."""
    path = _path(module)
    assert path
    text = path.read_text(encoding="utf-8")
    names = set(_NAMED.findall(text))
    for found in _IMPORT.findall(text):
        for statement in ast.parse(found).body:
            if isinstance(statement, ast.Import):
                names.update(alias.name for alias in statement.names)
            elif isinstance(statement, ast.ImportFrom) and statement.module:
                names.add(statement.module)
                names.update(f"{statement.module}.{alias.name}" for alias in statement.names)
    return frozenset(name for name in names if _path(name))


@cache
def _path(name: str) -> Path | None:
    """The source file of a module of these rooms; None for any other name."""
    parts = name.split(".")
    if len(parts) < 2 or parts[0] != _NAME or parts[1] not in _ROOMS:
        return None
    path = _PACKAGE.joinpath(*parts[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
