"""A model without an adapter as the folder that GGUF files are made of: its own weights, under the export's tokenizer.

Nothing is merged, so nothing is read, cast and written once more: the weights of the folder are linked.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from ramify.base.errors import ModelError
from ramify.export.gguf.families import examine
from ramify.export.merge import base_folder
from ramify.export.stored import weight_files
from ramify.model.source import Source

_COPIED = ("config.json", "generation_config.json", "README.md", SAFE_WEIGHTS_INDEX_NAME)
"""Small files beside the weights; they are copied, since some of them are written anew."""


def unmerged(parts: Source, tokens: int) -> Path | None:
    """The folder of a model whose weights can be written as they lie there; None: they have to be read and saved.

    Args:
        tokens: of its tokenizer; each has to have a row.
    """
    folder = base_folder(parts)
    if parts.adapter is not None or folder is None:
        return None
    try:
        return folder if tokens <= examine(folder).config.vocab_size else None
    except ModelError:  # other names, or another form than it will be saved in
        return None


def link(folder: Path, to: Path) -> bool:
    """Make a folder with the same weights and settings, without the tokenizer; False: this system links no files.

    Raises:
        OSError: the folder cannot be written.
    """
    to.mkdir(parents=True)
    try:
        for file in weight_files(folder):
            (to / file.name).symlink_to(file.resolve())
    except OSError:  # Windows allows it to some users only
        shutil.rmtree(to)
        return False
    for name in _COPIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, to / name)
    return True
