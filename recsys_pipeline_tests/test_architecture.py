"""Imports point towards the core, and each room holds what belongs there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recsys_pipeline
from recsys_pipeline_tests.conftest import PROJECT

PACKAGE = Path(recsys_pipeline.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
DESCRIPTION = (PROJECT / "docs" / "architecture.md").read_text()


def room(module):
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(module):
    """Dotted names of everything that a module imports."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(module):
    rooms = {name.split(".")[1] for name in imported(module) if name.startswith("recsys_pipeline.")}
    return rooms - {room(module)}


def picture():
    """The arrows of docs/architecture.md: what each room may import from the package."""
    (graph,) = re.findall(r"```mermaid\ngraph LR\n(.*?)```", DESCRIPTION, re.DOTALL)
    arrows = {room(module): set() for module in MODULES}
    for line in graph.splitlines():
        importer, imports = line.split("-->")
        arrows[importer.strip()].add(imports.strip())
    return arrows


ALLOWED = picture()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_no_more_than_the_picture_shows(module):
    assert rooms_imported(module) <= ALLOWED[room(module)]


def test_nobody_but_the_engines_knows_which_of_them_computes():
    chosen = PACKAGE / "engines" / "chosen.py"
    knowing = {
        module
        for module in MODULES
        for name in imported(module)
        if name.startswith("recsys_pipeline.engines.local") and room(module) != "engines"
    }

    assert knowing == set()
    assert any(name.startswith("recsys_pipeline.engines.local") for name in imported(chosen))


@pytest.mark.parametrize("name", ALLOWED)
def test_the_picture_shows_no_more_than_is_imported(name):
    of_room = [rooms_imported(module) for module in MODULES if room(module) == name]

    assert set().union(*of_room) == ALLOWED[name]


def test_imports_point_towards_the_core_and_never_back():
    """Room by room, those that import nothing but what is already there."""
    left, there = dict(ALLOWED), set()
    while ready := {name for name, imports in left.items() if imports <= there}:
        there |= ready
        left = {name: imports for name, imports in left.items() if name not in ready}

    assert left == {}
    assert ALLOWED["core"] == set()


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_every_room_is_described(name):
    described = DESCRIPTION[DESCRIPTION.index("```\n") :]

    assert f"`{name}`" in described


CORE = [module for module in MODULES if room(module) == "core"]


@pytest.mark.parametrize("module", CORE, ids=lambda path: path.stem)
def test_the_arithmetic_knows_neither_dagster_nor_paths_nor_the_clock(module):
    outside = {"dagster", "pathlib", "upath", "os", "time", "logging"}

    assert not {name.split(".")[0] for name in imported(module)} & outside


def packages_loaded_by(code, *names):
    """Which of the packages a fresh interpreter has loaded after this code."""
    look = f"{code}; import sys; print(*({set(names)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_the_package_itself_loads_nothing():
    names = ("dagster", "implicit", "matplotlib", "numba", "numpy", "pandas", "pyarrow", "scipy")

    assert packages_loaded_by("import recsys_pipeline", *names) == []


def test_a_worker_of_the_search_loads_no_more_than_it_needs():
    worker = "import recsys_pipeline.engines.local.worker"

    assert packages_loaded_by(worker, "dagster", "pandas", "pyarrow", "numba", "implicit") == []


def test_the_definitions_load_without_what_only_a_run_needs():
    definitions = "import recsys_pipeline.definitions"

    assert packages_loaded_by(definitions, "implicit", "numba", "matplotlib", "scipy") == []


def test_a_consumer_of_the_model_does_not_load_dagster():
    assert packages_loaded_by("from recsys_pipeline import load_model", "dagster", "pandas") == ["pandas"]


# Whose reading runs code that the file names.
UNPICKLING = {"joblib", "dill", "cloudpickle", "shelve", "marshal", "torch"}
UNSAFE_CALLS = {"read_pickle", "unsafe_load", "unsafe_load_all", "full_load", "Unpickler"}


def unsafe_readings(source):
    """Whatever in the source of a module would run code that it reads: line and why."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else names[0]
            if {module.split(".")[0], *names} & UNPICKLING or module in ("_pickle", "pickle5"):
                yield node.lineno, module
            if isinstance(node, ast.ImportFrom) and module in ("pickle", "yaml"):
                yield node.lineno, f"{module} is imported as a whole, so that one sees what is called"
            if any(alias.asname for alias in node.names if alias.name in ("pickle", "yaml")):
                yield node.lineno, f"another name for {module}"
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        if call in {"pickle.load", "pickle.loads", "yaml.load", "yaml.load_all", "eval", "exec"}:
            yield node.lineno, call
        if call.rpartition(".")[2] in UNSAFE_CALLS:
            yield node.lineno, call
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if keywords.get("allow_pickle", "False") != "False":
            yield node.lineno, "allow_pickle"
        if call in ("np.load", "numpy.load") and "allow_pickle" not in keywords:
            yield node.lineno, "np.load does not say allow_pickle=False"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled(module):
    assert list(unsafe_readings(module.read_text())) == []


def test_pickle_is_known_only_to_what_writes_the_notebooks_file():
    knowing = [module for module in MODULES if "pickle" in imported(module)]

    assert knowing == [PACKAGE / "storage" / "publishing.py"]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle; pickle.load(file)",
        "from pickle import loads",
        "import pickle as p",
        "import joblib",
        "from torch import load",
        "import yaml; yaml.load(text, Loader=yaml.Loader)",
        "import yaml; yaml.unsafe_load(text)",
        "np.load(path, allow_pickle=True)",
        "np.load(path)",
        "pd.read_pickle(path)",
        "eval(text)",
    ],
)
def test_what_would_unpickle_is_found(line):
    assert list(unsafe_readings(line))
