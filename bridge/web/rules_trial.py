"""Trying changed rules from the dashboard and the API: which files are tried, and who runs the trial.

The server only prepares the request. A trial runs in another process, since it may take seconds of computation
(`bridge.cli.rules_trial`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from bridge.errors import BridgeError
from bridge.rules.files import FOLDER
from bridge.rules.model import Rules
from bridge.rules.summary import display_files
from bridge.web.validation import InvalidParameter

MAX_TEXT: Final = 256 * 1024
"""Bytes of a changed file."""


class TrialFailed(BridgeError):
    """A trial without a result: another one runs, or it took too much time or memory. The message says what to do."""


class RulesTrial(Protocol):
    """Runs trials, one at a time."""

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run a trial; see `bridge.cli.rules_trial` for requests and results. Raise TrialFailed."""
        ...


def changed_files(rules: Rules, name: str | None, text: str) -> list[dict[str, str]]:
    """Return the files of the active rules with `text` in place of the file called `name`.

    `name` may be left out if there is only one file, and may be a new file of the folder `rules.d`. Raise
    InvalidParameter.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT:
        raise InvalidParameter(
            f"the file has more than {MAX_TEXT // 1024} KiB; `bridge plan` takes larger ones"
        )
    files = display_files(rules)
    names = [file.name for file in files]
    if name is None and len(files) == 1:
        name = names[0]
    if name not in names and not _is_new_file(name):
        raise InvalidParameter(
            f"`file` must be one of the rules files ({', '.join(names)}), or a new one such as {FOLDER}/new.yaml"
        )
    texts = {file.name: str(file.content) for file in files} | {str(name): text}
    return [{"name": file, "text": content} for file, content in texts.items()]


def all_files(rules: Rules) -> list[dict[str, str]]:
    """Return the files of the active rules."""
    return [{"name": file.name, "text": str(file.content)} for file in display_files(rules)]


def _is_new_file(name: str | None) -> bool:
    folder, _, file = (name or "").rpartition("/")
    return folder == FOLDER and file.endswith((".yaml", ".yml")) and file.isprintable()
