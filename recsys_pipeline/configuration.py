"""The configuration of a run: knobs tell their bounds; what is wrong is refused before anything runs."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

import click
from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen
from dagster import (
    AssetsDefinition,
    Config,
    DagsterInvalidConfigError,
    JobDefinition,
    OpDefinition,
    validate_run_config,
)
from dagster._config.pythonic_config.resource import PartialResource
from dagster._core.errors import DagsterUserCodeProcessError
from dagster._utils.error import SerializableErrorInfo  # type: ignore[attr-defined]
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

# What pydantic puts before the message of a validator of ours.
_PREFIX = "Value error, "
_INPUT = "Input "
_MOST_SHOWN = 60


class InvalidConfigurationError(DagsterUserCodeProcessError, click.ClickException):
    """One sentence on what is wrong: in the UI without a stack trace, on a command line as a usage error.

    Dagster shows of such an error what it holds; commands of `dagster` and `dg` end as `click` does.
    """

    def __init__(self, message: str) -> None:
        told = SerializableErrorInfo(message, stack=[], cls_name=type(self).__name__)
        super().__init__(message, user_code_process_error_infos=[told])  # type: ignore[no-untyped-call]
        self.message = message  # type: ignore[misc]  # of click, whose own __init__ is not called


class ToldBounds:
    """Of a configuration class: the bounds of a field are part of its description in the Launchpad."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Called by pydantic once the fields of a class are known."""
        super().__pydantic_init_subclass__(**kwargs)  # type: ignore[misc]  # of the pydantic class beside it
        fields: Mapping[str, FieldInfo] = cls.model_fields  # type: ignore[attr-defined]
        for field in fields.values():
            told = told_bounds(field)
            if told and told not in (field.description or ""):
                field.description = f"{field.description or ''} {told}".strip()


class Knobs(ToldBounds, Config):
    """What a person may turn of an asset."""


def told_bounds(field: FieldInfo) -> str:
    """What values a field may have, as a sentence; empty where any may be."""
    least = [each.min_length for each in field.metadata if isinstance(each, MinLen)]
    of_each = [_interval(getattr(part, "__metadata__", ())) for part in get_args(field.annotation)]
    told = [
        _interval(field.metadata),
        "at least one value" if field.annotation is not str and least and least[0] == 1 else "",
        *(f"each {each}" for each in of_each if each),
    ]
    told = [each for each in told if each]
    return f"Bounds: {', '.join(told)}." if told else ""


def _interval(metadata: Iterable[Any]) -> str:
    low, high = "", ""
    for constraint in metadata:
        if isinstance(constraint, FieldInfo):
            return _interval(constraint.metadata)
        if isinstance(constraint, Interval):
            return _interval(list(constraint))
        if isinstance(constraint, Ge):
            low = f"at least {constraint.ge:,}"
        elif isinstance(constraint, Gt):
            low = f"above {constraint.gt:,}"
        elif isinstance(constraint, Le):
            high = f"at most {constraint.le:,}"
        elif isinstance(constraint, Lt):
            high = f"below {constraint.lt:,}"
    return " and ".join(each for each in (low, high) if each)


def refuse_invalid(
    assets: Iterable[AssetsDefinition],
    resources: Mapping[str, Any],
) -> None:
    """Let Dagster refuse invalid configuration of these when a run is asked for.

    Dagster knows the types of a configuration class, but not its bounds, which it would check when the step
    begins. It asks the type of each configuration to process what was given, whoever asks for a run and by
    whatever executor: here the class itself is asked, as the step would.
    """
    for asset in assets:
        op = asset.node_def
        if isinstance(op, OpDefinition) and (config_class := _config_class(op)):
            _ask(op.get_config_field().config_type, op.name, config_class)
    for name, resource in resources.items():
        if isinstance(resource, PartialResource):
            config_type = resource.get_resource_definition().get_config_field().config_type
            _ask(config_type, name, resource.resource_cls)


def _config_class(op: OpDefinition) -> type[BaseModel] | None:
    compute: Any = op.compute_fn
    return compute.get_config_arg().annotation if compute.has_config_arg() else None


def _ask(config_type: Any, name: str, config_class: type[BaseModel]) -> None:
    def post_process(value: Mapping[str, Any]) -> Mapping[str, Any]:
        require_valid(name, config_class, value)
        return value

    # Of this one type; Dagster makes types itself, so that there is no class to inherit from.
    vars(config_type)["post_process"] = post_process


def require_valid(name: str, config_class: Callable[..., Any], value: Mapping[str, Any]) -> None:
    """Refuse what a configuration class does.

    Raises:
        InvalidConfigurationError: it does; the message names what is configured and the field.
    """
    try:
        config_class(**value)
    except ValidationError as error:
        raise InvalidConfigurationError(f"{name}: {_told(error, config_class)}.") from None


def _told(error: ValidationError, config_class: Any) -> str:
    secret = config_class.model_config.get("hide_input_in_errors", False)
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        message = problem["msg"]
        if message.startswith(_PREFIX):
            where, told = _place(problem["loc"]), message.removeprefix(_PREFIX)
            problems.append(f"{where}: {told}" if where and not told.startswith(where) else told)
        else:
            given = problem["input"]
            hidden = secret and not isinstance(given, int | float)
            shown = "" if hidden else f" is {str(given)[:_MOST_SHOWN]}: it"
            problems.append(f"{_place(problem['loc'])}{shown} {message.removeprefix(_INPUT)}")
    return "; ".join(dict.fromkeys(problems))


def _place(location: Iterable[int | str]) -> str:
    place = ""
    for part in location:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place


def told_invalid(job: JobDefinition, run_config: Mapping[str, Any]) -> str:
    """What is wrong with the configuration of a run of this job, in one sentence; empty for nothing."""
    names = [node.name for node in job.nodes]
    if told := told_unknown_names(run_config, names):
        return told
    try:
        validate_run_config(job, dict(run_config))
    except InvalidConfigurationError as error:
        return error.message
    except DagsterInvalidConfigError as error:
        return "; ".join(each.message.split(" Expected:")[0] for each in error.errors)
    return ""


def told_unknown_names(run_config: Mapping[str, Any], known: Iterable[str]) -> str:
    """What is wrong with the names under `ops`; empty for nothing.

    Dagster takes any name there if a run is not of a job, and runs what was meant with its defaults.

    Args:
        run_config: of the run.
        known: names of all assets.
    """
    names = sorted(known)
    unknown = [name for name in run_config.get("ops") or {} if name not in names]
    if not unknown:
        return ""
    told = []
    for name in unknown:
        near = difflib.get_close_matches(name, names, n=1)
        mend = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
        told.append(f"`ops` of the configuration names {name!r}, which is no asset: {mend}")
    return " ".join(told)
