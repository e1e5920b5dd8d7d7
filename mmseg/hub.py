"""Repositories of models on the Hugging Face Hub: fetched, and filled. Needs ``huggingface_hub``, and a network.

``hf://user/name`` and ``hf://user/name@revision`` stand for a checkpoint wherever a file of one is taken. Downloads are
kept in the Hub's own cache, from which they are taken where there is no network.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmseg.errors import CheckpointError, ConfigError, SegError, WriteError
from mmseg.files import write_error
from mmseg.version import WRITER, __version__

_ADDRESS = re.compile(
    r"hf:/{1,2}(?P<repo>[^@]*)(?:@(?P<revision>.*))?", re.DOTALL
)  # one slash: pathlib takes the other
_REPO = re.compile(r"\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
_REVISION = re.compile(r"[^\s/.](?:[^\s.]|\.(?!\.))*")  # as git has it: no "..", nor a hidden name
_INSTALL = "pip install huggingface_hub (or pip install 'mmseg-video[hub]')"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def is_address(name: Any) -> bool:
    """Whether a name of a checkpoint is that of a repository, ``hf://user/name``."""
    return isinstance(name, str | Path) and _ADDRESS.fullmatch(str(name)) is not None


def parse_address(name: str | Path) -> tuple[str, str | None]:
    """``user/name`` and the revision of ``hf://user/name@revision``."""
    match = _ADDRESS.fullmatch(str(name))
    return match["repo"].strip("/"), match["revision"]


def is_repo_id(name: str) -> bool:
    """Whether this could be the name of a repository, ``user/name``."""
    fits = len(name) <= 96 and _REPO.fullmatch(name) is not None
    return fits and ".." not in name and "--" not in name and not name.endswith(".git")


def fetch(
    repo_id: str,
    files: Sequence[str],
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Download `files` of a repository, unless they have been; returns the folder that has them, called as its commit.

    Args:
        repo_id: ``user/name``.
        files: names of files.
        revision: branch, tag or commit.
        token: of the user; None takes that of ``hf auth login``.
        local_files_only: take what has been downloaded before.

    Raises:
        ConfigError: huggingface_hub is not installed.
        CheckpointError: no such repository or revision, one without the `files`, no access, no network, or a download
            that breaks off.
        WriteError: the cache cannot be written.
    """
    library = _library()
    _check_name(repo_id)
    if revision is not None and not _REVISION.fullmatch(revision):
        raise ConfigError(
            f"{revision!r:.80} as a revision of hf://{repo_id}", "a branch, tag or commit", "correct what follows the @"
        )
    with _explained(repo_id, revision):
        folder = library.snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            local_files_only=local_files_only,
            allow_patterns=list(files),
            library_name=WRITER,
            library_version=__version__,
        )
    missing = [name for name in files if not os.path.isfile(Path(folder, name))]
    if missing:
        raise CheckpointError(
            f"hf://{repo_id}: there is no {' and no '.join(missing)}"
            + (" on this machine" if local_files_only else ""),
            "a repository as tools/publish_model.py fills it",
            "name another one; after a download that broke off: the same again, with a network",
        )
    return Path(folder)


def upload(folder: Path, repo_id: str, message: str, private: bool = False, token: str | None = None) -> str:
    """Make the files of `folder` those of a repository, in one commit; files of other names stay.

    Args:
        folder: its files are uploaded.
        repo_id: ``user/name``; is made if it is missing.
        message: of the commit.
        private: whether a new repository is.
        token: of the user; None takes that of ``hf auth login``.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: huggingface_hub is not installed, or a name that no repository can have.
        WriteError: no network, no permission, or an upload that breaks off: the repository is as it was.
    """
    library = _library()
    _check_name(repo_id)
    with _explained(repo_id, None, writing=True):
        api = library.HfApi(token=token, library_name=WRITER, library_version=__version__)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message).repo_url)


def has_file(repo_id: str, file: str, token: str | None = None) -> bool:
    """Whether a repository is there and has a file of this name. Raises as :func:`upload` does."""
    library = _library()
    _check_name(repo_id)
    with _explained(repo_id, None, writing=True):
        return bool(library.HfApi(token=token).file_exists(repo_id, file))


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            f"a repository of the Hugging Face Hub without huggingface_hub ({error})", "the package", _INSTALL
        ) from error
    return huggingface_hub


def _check_name(repo_id: str) -> None:
    if not is_repo_id(repo_id):
        raise ConfigError(
            f"{repo_id!r} as the name of a repository of the Hub",
            "user/name of letters, digits, '-', '_' and '.', at most 96",
            "correct the name; a folder of this machine has to be there, and is named without hf://",
        )


@contextmanager
def _explained(repo_id: str, revision: str | None, writing: bool = False) -> Iterator[None]:
    """Whatever the library raises, as one of our errors."""
    try:
        yield
    except SegError:
        raise
    except Exception as error:  # of the library, of what it sends requests with, of the file system
        raise _error_for(error, repo_id, revision, writing) from error


def _error_for(error: Exception, repo_id: str, revision: str | None, writing: bool) -> SegError:
    from huggingface_hub import errors

    kind = WriteError if writing else CheckpointError
    status = getattr(getattr(error, "response", None), "status_code", None)
    place = f"hf://{repo_id}" + (f"@{revision}" if revision else "")
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if isinstance(error, errors.GatedRepoError):
        return kind(
            f"{place}: access has to be asked for",
            "a repository that you have access to",
            f"accept its terms on https://huggingface.co/{repo_id}, then: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return kind(f"{place}: no such revision", "a branch, tag or commit of it", "correct what follows the @")
    if writing and (status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError)):
        return kind(
            f"{place}: may not be written ({status or 'no token'})",
            "a token with the right to write",
            "hf auth login, with a token of the kind 'write', and a repository of your own name",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        return kind(
            f"{place}: no such repository on the Hub, or a private one",
            "user/name of a model",
            "check the spelling; for a private one: hf auth login",
        )
    if isinstance(error, OSError) and status is None and (error.errno in _NO_SPACE or error.filename is not None):
        return write_error(error.filename or "the cache of the Hub", error, "HF_HOME says where downloads go")
    if status is None and (isinstance(error, errors.LocalEntryNotFoundError | OSError) or "Connect" in said):
        return kind(
            f"{place}: the Hub cannot be reached" + ("" if writing else ", and it was not downloaded before"),
            "a network, or a name that has been downloaded to this machine",
            f"check the network, HF_HUB_OFFLINE and HF_ENDPOINT, or name a folder of this machine ({said})",
        )
    return kind(f"{place}: the Hub's library failed ({said})", "a transfer that works", "try it again later")
