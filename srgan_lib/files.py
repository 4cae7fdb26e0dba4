"""Files: whole or not at all."""

import json
import os
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

from srgan_lib.errors import UserError


@contextmanager
def atomic_write(path):
    """Yield a temporary path; it takes the place of `path` on success.

    After an error the old file is untouched and nothing else is left. The
    folder is made if need be; what the system refuses (full disk, no
    permission) is a UserError.
    """
    target = Path(path).resolve()  # a link stays, as in ordinary writing
    # In the same folder, for only there is a rename atomic.
    temporary = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.filename in (None, str(temporary), temporary):
            raise _cannot_write(path, error) from error
        raise  # the caller stumbled over another file
    finally:
        with suppress(OSError):  # a folder that refuses this has said so
            temporary.unlink(missing_ok=True)


def _cannot_write(path, error):
    if isinstance(error, IsADirectoryError):
        return UserError(f"{path} is a folder; name a file.")
    return UserError(
        f"{path} cannot be written ({error.strerror or error}); "
        "free some space or choose another folder."
    )


def write_text(path, text):
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path):
    """What a .json file holds; nothing if it is missing or cut short."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
