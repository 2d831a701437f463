"""One student's submission folder as the text of a prompt's Code section."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from ramify.data.labs.files import clashing, entries, read_text, refuse_name, refuse_way_out
from ramify.data.labs.records import Reason, UnusableError
from ramify.data.labs.scrub import ENDINGS, Scrubber

_DEEPEST = 8  # folders in folders


@dataclass(frozen=True, slots=True)
class Submission:
    """What a student handed in.

    Attributes:
        code: the one file's text; with several, each behind a line `File: name`, in the order of their names.
        digest: equal for submissions whose texts differ in white space, names of files and names of students only.
        replaced: names and addresses taken out.
        legacy: names of the files that were not UTF-8.
    """

    code: str
    digest: str
    replaced: int
    legacy: tuple[str, ...]


def read_submission(folder: Path, bound: Path, scrubber: Scrubber, limit: int) -> Submission:
    """All source files of a submission folder, those of its subfolders included; other files are passed over.

    Args:
        bound: the folder that a linked `folder` must not lead out of.
        limit: bytes that each source file, and all of them together, may have.

    Raises:
        UnusableError: there is no code, or one of its files cannot be used: the rest is not what was graded.
    """
    refuse_way_out(folder, bound)
    texts: dict[str, str] = {}
    legacy: list[str] = []
    replaced = renamed = size = 0
    for file in _sources(folder, PurePath(), 0):
        shown = scrubber.comment(file.as_posix())
        try:
            text = read_text(folder / file, folder, limit)
        except UnusableError as error:
            raise UnusableError(error.reason, error.detail, file=file.as_posix()) from None
        cleaned = scrubber.code(text.content, file.name)
        size += len(text.content.encode())
        if size > limit:
            raise UnusableError(Reason.SIZE, f"its source files together; {limit:,} bytes are allowed")
        if cleaned.text.strip():
            texts[_free(shown.text, texts)] = cleaned.text.rstrip().lstrip("\n")
            replaced += cleaned.replaced
            renamed += shown.replaced
            legacy += [file.as_posix()] if text.legacy else []
    if not texts:
        raise UnusableError(Reason.NO_CODE)
    if len(texts) == 1:
        (code,) = texts.values()
    else:
        code = "\n\n".join(f"File: {name}\n{text}" for name, text in texts.items())
        replaced += renamed
    return Submission(code, _digest(texts.values()), replaced, tuple(legacy))


def _sources(folder: Path, within: PurePath, depth: int) -> Iterator[PurePath]:
    """Paths of the source files below `folder`, relative to it: a folder's own files first, each in order of name."""
    here = folder / within
    files = [name for name in entries(here, folders=False) if PurePath(name).suffix.lower() in ENDINGS]
    folders = entries(here, folders=True)
    equal = clashing([*files, *folders])
    for name in (*files, *folders):
        refuse_name(name)
        if name in equal:
            raise UnusableError(Reason.NAME, "differs from another one in case or Unicode form only")
    yield from (within / name for name in files)
    for name in folders:
        if (here / name).is_symlink():
            refuse_way_out(here / name, folder)
            continue  # what it leads to stands in the folder, and is read there
        if depth == _DEEPEST:
            raise UnusableError(Reason.UNREADABLE, f"more than {_DEEPEST} folders in each other")
        yield from _sources(folder, within / name, depth + 1)


def _free(name: str, taken: dict[str, str]) -> str:
    """The name, or the first of `2-name`, `3-name`, … that is free: two names may be equal once they are clean."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{number}-{name}"
    return free


def _digest(texts: Iterable[str]) -> str:
    plain = sorted("".join(text.split()) for text in texts)
    return hashlib.blake2b("\x1f".join(plain).encode(), digest_size=16).hexdigest()
