"""The files of an export, in a folder of their own or packed as one."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from streams.errors import SettingsError
from streams.rights.export import held
from streams.rights.export.page import page
from streams.rights.export.tables import tables

_TIME = (1980, 1, 1, 0, 0, 0)  # zip has to have one: when it was made stands in the files


def files(export: held.Export) -> dict[str, bytes]:
    """File name -> content: JSON with its schema, the page, the CSVs."""
    return {
        "export.html": page(export),
        "export.json": held.encode(export),
        held.SCHEMA_FILE: held.schema(),
        **tables(export),
    }


def pack(content: Mapping[str, bytes]) -> bytes:
    """The files as one zip. Equal files give equal bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in sorted(content.items()):
            archive.writestr(zipfile.ZipInfo(name, _TIME), raw, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def unpack(packed: bytes) -> dict[str, bytes]:
    """The files of `pack`. Its bytes have to be ones that were sealed by us."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_folder(folder: Path) -> None:
    """Refuse a folder that files of an export must not be put into: one that is not empty, or no folder.

    Raises SettingsError.
    """
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise SettingsError(f"{folder} is not a folder: name one that does not exist or is empty")
        if folder.exists() and any(folder.iterdir()):
            raise SettingsError(f"{folder} is not empty: name one that does not exist or is empty")
        if not folder.exists() and not folder.absolute().parent.is_dir():
            raise SettingsError(f"the folder around {folder} does not exist")
    except OSError as error:
        raise SettingsError(f"{folder} cannot be looked at ({type(error).__name__})") from None


def write(folder: Path, content: Mapping[str, bytes]) -> None:
    """Write the files into a folder that is new or empty, for its owner's eyes only (0700, 0600).

    Raises SettingsError, also when a file is there already; a caller may NOT assume that nothing was written then.
    """
    check_folder(folder)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        for name, raw in content.items():
            if Path(name).name != name:
                raise SettingsError("a file of this export would lie outside of its folder")
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written to ({type(error).__name__})") from None
