"""Read a config: YAML, then command-line overrides, then strict validation with readable errors.

    load_config("jobs/configs/demo.yaml", ["--sampling.samples", "4"])

An override names an option by its dotted path and gives its value as YAML. Whatever is wrong is
told at once, in words: the file, the key, what was found, and what is allowed there.
"""

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config import ArmConfig, PipelineConfig, Section
from pipeline.config.idle import misplaced_options


class ConfigError(Exception):
    """A config that cannot be used; the message names each key and what is allowed."""


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    arms: Sequence[ArmConfig] | None = None,
) -> PipelineConfig:
    """The validated config of a YAML file and `--key value` overrides. Raises ConfigError, also for
    an option of a correction that no arm has. `arms`: those that a job trains in their place."""
    raw = _read_yaml(Path(path))
    for key, value in _parse_overrides(overrides):
        _set(raw, key, value)
    try:
        config = PipelineConfig.model_validate(raw)
    except ValidationError as error:
        lines = [f"{path}: {_explain(detail, raw)}" for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    misplaced = list(misplaced_options(config.training, arms or config.training.arms))
    if misplaced:
        raise ConfigError("\n".join(f"{path}: {sentence}" for sentence in misplaced))
    return config


def dump_config(config: PipelineConfig) -> str:
    """The resolved config as YAML, every default spelled out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def options() -> Iterator[tuple[str, str, str]]:
    """Every option as (dotted key, default, meaning), in the order of the story."""
    yield from _options_of(PipelineConfig, "")


class _StrictLoader(yaml.SafeLoader):
    """YAML in which writing a key twice is an error, not a silent last-one-wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        # SafeLoader builds plain values only; the subclass adds the check for doubled keys.
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, TypeError) as error:  # TypeError: a key that is no plain value
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: holds {type(raw).__name__}, not `key: value` pairs")
    return raw


def _parse_overrides(words: Sequence[str]) -> Iterator[tuple[list[str], Any]]:
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"{word}: expected `--option value`")
        option, equals, value = word[2:].partition("=")
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise ConfigError(f"--{option}: needs a value")
            value = remaining.pop(0)
        try:
            yield option.replace("-", "_").split("."), yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--{option}: {value!r} is not a YAML value: {error}") from None


def _set(raw: dict[str, Any], key: list[str], value: Any) -> None:
    section = raw
    for name in key[:-1]:
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            raise ConfigError(f"--{'.'.join(key)}: {name!r} is a value, not a section")
    section[key[-1]] = value


def _explain(detail: Any, raw: dict[str, Any]) -> str:
    """One pydantic error in plain words."""
    path, section = _locate(detail["loc"], raw)
    key = ".".join(str(part) for part in path) or "the whole config"
    if detail["type"] == "extra_forbidden":
        allowed = sorted(section.model_fields) if section else []
        close = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"{key}: unknown key.{hint} Allowed here: {', '.join(allowed)}"
    if detail["type"] == "missing":
        return f"{key}: missing, and it has no default"
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']}"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{key}: {message}; found {detail['input']!r}"


def _locate(
    location: tuple[str | int, ...], raw: Any
) -> tuple[list[str | int], type[BaseModel] | None]:
    """A pydantic location without the tags of unions, and the section that holds its last key."""
    path: list[str | int] = []
    here: Any = raw
    annotation: Any = PipelineConfig
    holder: type[BaseModel] | None = None
    for position, part in enumerate(location):
        section = _section(annotation, here)
        inside = isinstance(here, list | tuple) or (
            section is not None
            and (part in section.model_fields or (isinstance(here, dict) and part in here))
        )
        if not inside:
            continue  # the tag of a union, which is no key of the file
        path.append(part)
        if section is not None:
            holder = section
            field = section.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            annotation = _item_annotation(annotation)
        if isinstance(here, dict):
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif position < len(location) - 1:
            here = None
    return path, holder


def _arms(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _arms(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for arm in typing.get_args(annotation):
            yield from _arms(arm)
    else:
        yield annotation


def _section(annotation: Any, value: Any) -> type[BaseModel] | None:
    """The section class that `annotation` means for this value (a union is decided by `kind`)."""
    sections = [
        arm for arm in _arms(annotation) if isinstance(arm, type) and issubclass(arm, Section)
    ]
    if len(sections) > 1 and isinstance(value, dict):
        kind = value.get("kind")
        for section in sections:
            if kind in typing.get_args(section.model_fields["kind"].annotation):
                return section
    return sections[0] if sections else None


def _item_annotation(annotation: Any) -> Any:
    for arm in _arms(annotation):
        if typing.get_origin(arm) is tuple:
            return typing.get_args(arm)[0]
    return None


def _options_of(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        nested = [
            arm
            for arm in _arms(field.annotation)
            if isinstance(arm, type) and issubclass(arm, Section)
        ]
        if not nested:
            default = "required" if field.is_required() else _shown(field.default)
            meaning = " ".join((field.description or "").split())
            yield key, default, f"{meaning} {_choices(field.annotation)}".strip()
        for arm in nested:
            yield from _options_of(arm, f"{key}.")


def _choices(annotation: Any) -> str:
    """`(a | b)` where an option takes one of a few words."""
    words: list[str] = []
    for arm in _arms(annotation):
        if typing.get_origin(arm) is typing.Literal:
            words += [str(word) for word in typing.get_args(arm)]
        elif isinstance(arm, type) and issubclass(arm, StrEnum):
            words += [member.value for member in arm]
    return f"({' | '.join(words)})" if len(words) > 1 else ""


def _shown(default: Any) -> str:
    if isinstance(default, tuple) and any(isinstance(item, BaseModel) for item in default):
        return "[" + ", ".join(getattr(item, "name", "…") for item in default) + "]"
    return str(default)
