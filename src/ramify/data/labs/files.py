"""Names and files of a lab folder that nobody vouches for: what is refused, and how bytes become text."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ramify.data.labs.records import Reason, UnusableError

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x7f]")  # no text has them; page feeds and escapes occur


@dataclass(frozen=True, slots=True)
class Text:
    """The content of a file, its lines ended by `\\n`; `legacy` when it was not UTF-8."""

    content: str
    legacy: bool = False


def fold(name: str) -> str:
    """A name without what differs between two spellings of it: case, Unicode form, white space."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def student_of(name: str) -> str:
    """The student that a submission folder or an address belongs to: what stands before "@", folded."""
    return fold(name.partition("@")[0])


def refuse_name(name: str) -> None:
    """Refuse a name that is no plain file name.

    Raises:
        UnusableError: it is empty, a way to another folder, or holds control characters.
    """
    if not name.isprintable():
        raise UnusableError(Reason.NAME, "control characters")
    if not student_of(name) or name in (".", "..") or re.search(r"[/\\]|^[A-Za-z]:", name):
        raise UnusableError(Reason.NAME, "a plain name is needed, not a path")


def clashing(names: Iterable[str]) -> frozenset[str]:
    """The names that are equal to another one up to case and Unicode form."""
    known = list(names)
    folded = Counter(map(fold, known))
    return frozenset(name for name in known if folded[fold(name)] > 1)


def entries(folder: Path, *, folders: bool | None = None) -> list[str]:
    """Names in a folder, hidden ones left out, sorted; with `folders`, only folders (or only others).

    Raises:
        UnusableError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            kept = [each for each in found if not each.name.startswith((".", "__MACOSX"))]
        return sorted(each.name for each in kept if folders is None or each.is_dir() is folders)
    except OSError as error:
        raise UnusableError(Reason.UNREADABLE, error.strerror or "", folder.name) from None


def refuse_way_out(path: Path, bound: Path) -> None:
    """Refuse a path that leads out of the folder `bound` once its links are followed.

    Raises:
        UnusableError: it does, or its links lead nowhere.
    """
    try:
        if path.resolve(strict=True).is_relative_to(bound.resolve(strict=True)):
            return
    except (OSError, RuntimeError):  # dangling, or a ring of links
        raise UnusableError(Reason.UNREADABLE, "a link that leads nowhere" if path.is_symlink() else "") from None
    raise UnusableError(Reason.LINK)


def read_text(path: Path, bound: Path, limit: int) -> Text:
    """The text of a file that may be a link within `bound` and holds at most `limit` bytes.

    UTF-8 with or without a mark, UTF-16 with one, else Windows-1252, else Latin-1, which every byte fits.

    Raises:
        UnusableError: a link leads out of `bound`; no plain file, too large, not readable, or not text.
    """
    refuse_way_out(path, bound)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            raise UnusableError(Reason.UNREADABLE, "not a plain file")
        if found.st_size > limit:
            raise UnusableError(Reason.SIZE, f"{found.st_size:,} bytes, {limit:,} are allowed")
        return _decode(path.read_bytes())
    except OSError as error:
        raise UnusableError(Reason.UNREADABLE, error.strerror or "") from None


def _decode(raw: bytes) -> Text:
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252", "latin-1"):
        try:
            content = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _CONTROL.search(content):
            break
        content = content.replace("\r\n", "\n").replace("\r", "\n").replace("\x1a", "")  # DOS ends files with it
        return Text(content, legacy=encoding != "utf-8-sig")
    raise UnusableError(Reason.BINARY)
