"""Imports point towards the core, and each room holds what belongs there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import recsys_pipeline

PACKAGE = Path(recsys_pipeline.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each room may import from the package, besides itself.
ALLOWED = {
    "core": set(),
    "engines": {"core"},
    "failures": {"core"},
    "reporting": {"core"},
    "settings": set(),
    "storage": {"core", "failures", "settings", "reporting"},
    "recommender": {"core", "engines", "storage"},
    "assets": {"core", "engines", "failures", "reporting", "storage"},
    "checks": {"assets", "core", "recommender", "storage"},
    "automation": {"settings"},
    "definitions": {"assets", "automation", "checks", "settings", "storage"},
    "__main__": {"core", "settings", "storage"},
    "__init__": {"recommender"},
}


def room(module):
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(module):
    """Dotted names of everything that a module imports."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_towards_the_core(module):
    rooms = {name.split(".")[1] for name in imported(module) if name.startswith("recsys_pipeline.")}

    assert rooms - {room(module)} <= ALLOWED[room(module)]


CORE = [module for module in MODULES if room(module) == "core"]


@pytest.mark.parametrize("module", CORE, ids=lambda path: path.stem)
def test_the_arithmetic_knows_neither_dagster_nor_paths_nor_the_clock(module):
    outside = {"dagster", "pathlib", "upath", "os", "time", "logging"}

    assert not {name.split(".")[0] for name in imported(module)} & outside


@pytest.mark.parametrize("package", ["dagster", "pandas", "pyarrow", "numba"])
def test_a_worker_of_the_search_loads_no_more_than_it_needs(package):
    code = f"import sys, recsys_pipeline.engines.worker; sys.exit({package!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_consumer_of_the_model_does_not_load_dagster():
    code = "import sys; from recsys_pipeline import load_model; sys.exit('dagster' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled(module):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            call = ast.unparse(node.func)
            assert call not in {
                "pickle.load",
                "pickle.loads",
                "pickle.Unpickler",
                "joblib.load",
                "pd.read_pickle",
            }
            if call == "np.load":
                assert "allow_pickle=False" in ast.unparse(node)
