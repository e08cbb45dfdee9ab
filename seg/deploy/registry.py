"""MLflow's registry of models: what ``hippocampus@champion`` and ``hippocampus/3`` mean, and where they are read."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from seg.deploy.logged import PACKAGE
from seg.deploy.package import MODEL, is_package, read
from seg.errors import ConfigError, DataError, few, nearest
from seg.files import atomic_folder, digest, sha256
from seg.records.address import address_given
from seg.records.mlflow import Mlflow

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_REFERENCE = re.compile(r"(?P<name>[^/:@]+)(@(?P<alias>[\w-]+)|/(?P<number>[1-9]\d*))")


def is_reference(place: str) -> bool:
    """Whether a text is of the form ``name@alias`` or ``name/3``."""
    return bool(_REFERENCE.fullmatch(place))


def opened(outputs: Path, uri: str | None = None) -> Mlflow:
    """The MLflow that has the registry: at ``uri``, at MLflow's own variable, or the database under ``outputs``.

    Raises:
        ConfigError: it is not there, or does not answer.
    """
    return Mlflow(uri or address_given(), outputs)


def fetched(
    reference: str, *, outputs: Path = Path("outputs"), uri: str | None = None, cache: Path | None = None
) -> Path:
    """The folder of the package of a registered version: in place where it is on this machine, else downloaded once.

    Args:
        reference: ``name@alias`` or ``name/3``.
        outputs: as of ``opened``.
        uri: as of ``opened``.
        cache: where downloads are kept; None: in ``outputs``.

    Raises:
        ConfigError: there is no such model, version or alias, or MLflow does not answer.
        DataError: the version has no package, or another than the one that was registered.
    """
    store = opened(outputs, uri)
    with store.explained():
        name, number = version_of(store, reference)
        source = store.client.get_model_version_download_uri(name, number)
        package = versions(store, name)[number].tags.get("package")
    parts = urlsplit(source)
    if parts.scheme in ("", "file"):
        place = Path(url2pathname(parts.path)) / PACKAGE
        if not is_package(place):
            raise DataError(f"{reference} has no package at {place}: it is on another machine, or was not made by seg.")
    else:
        place = _downloaded(store, reference, source, (cache or outputs / "cache") / "models" / digest(source)[:32])
    if package and sha256(place / MODEL) != package:
        raise DataError(
            f"{reference} is not as it was registered: {place / MODEL} was changed. Restore it from a backup, or "
            "register the run again."
        )
    return place


def version_of(store: Mlflow, reference: str) -> tuple[str, str]:
    """Name and number of the version that ``name@alias`` or ``name/3`` means.

    Raises:
        ConfigError: there is no such model, version or alias; it says which there are.
    """
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise ConfigError(f"{reference} must be of the form hippocampus@champion or hippocampus/3.")
    name, model = found["name"], registered(store, found["name"])
    numbers = {*versions(store, name)}
    aliases = {alias: str(number) for alias, number in model.aliases.items()}
    number = aliases.get(found["alias"]) if found["alias"] else found["number"]
    if number not in numbers:
        known = [f"{name}/{number}" for number in sorted(numbers, key=int)]
        known += [f"{name}@{alias} ({number})" for alias, number in sorted(aliases.items())]
        raise ConfigError(f"{store.name} has no {reference}. There are {', '.join(known) or 'no versions at all'}.")
    return name, str(number)


def versions(store: Mlflow, name: str) -> "dict[str, ModelVersion]":
    """All versions of a registered model by their numbers, the oldest first."""
    quote = '"' if "'" in name else "'"
    found = {str(one.version): one for one in store.client.search_model_versions(f"name = {quote}{name}{quote}")}
    return {number: found[number] for number in sorted(found, key=int)}


def registered(store: Mlflow, name: str) -> "RegisteredModel":
    """The registered model of that name.

    Raises:
        ConfigError: there is none; it names those that there are.
    """
    if model := sought(store, name):
        return model
    names = [model.name for model in store.client.search_registered_models(max_results=1000)]
    known = nearest(name, names) or f" There are {few(names) or 'none yet'}."
    raise ConfigError(f"{store.name} has no registered model {name}.{known}")


def sought(store: Mlflow, name: str) -> "RegisteredModel | None":
    """The registered model of that name; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return None


def _downloaded(store: Mlflow, reference: str, source: str, place: Path) -> Path:
    """The package in ``place``, whole: it has hashes of its own."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    try:
        read(place)
    except DataError:
        shutil.rmtree(place, ignore_errors=True)
        with store.explained(), atomic_folder(place) as draft:
            if not list_artifacts(f"{source}/{PACKAGE}", tracking_uri=store.uri):
                raise DataError(f"{reference} has no package: it was not made by seg.") from None
            got = Path(download_artifacts(f"{source}/{PACKAGE}", dst_path=str(draft), tracking_uri=store.uri))
            for file in got.iterdir():
                file.replace(draft / file.name)
            if got != draft:
                shutil.rmtree(draft / got.relative_to(draft).parts[0])
    return place
