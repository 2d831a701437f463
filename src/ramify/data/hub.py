"""Rows of data sets of the Hugging Face hub, through the library `datasets`."""

from __future__ import annotations

from typing import Any

from ramify.base.errors import DataError
from ramify.data.files import first_line, library
from ramify.data.json_text import Numbered
from ramify.data.source import Source

_BATCH = 1000


def hub_rows(source: Source) -> Numbered:
    """The rows of one split, numbered from 1; with `stream` as they are downloaded.

    Raises:
        DataError: the data set, its configuration, split or revision is not there, cannot be reached, or is broken.
    """
    source.check_hub_id()
    datasets = library("datasets", "reading data sets of the hub")
    try:
        found = _load(datasets, source)
        number = 0
        for batch in found.iter(batch_size=_BATCH):
            names = list(batch)
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(names, values, strict=True))
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # whatever the network, the hub or a file there brings
        raise _explained(source, error) from None


def _load(datasets: Any, source: Source) -> Any:
    return datasets.load_dataset(
        source.hub_id,
        source.config,
        split=source.split or source.default_split,
        revision=source.revision,
        streaming=source.stream,
    )


def _explained(source: Source, error: Exception) -> DataError:
    said = f"{type(error).__name__}: {first_line(error)}"
    hint = None
    if isinstance(error, OSError):
        hint = "is the name right, and is the hub within reach? HF_TOKEN opens data sets that are not public"
    return DataError(f"the hub data set cannot be read: {said}", path=source.name, hint=hint)
