"""Data files of the command line: the starter files of `bridge init` and the rules of `bridge demo`.

`demo_rules.yaml` and `env.example` are copies of `rules.yaml` and `.env.example` in the repository, which an installed
package does not have. A test keeps them equal.
"""

from __future__ import annotations

from importlib.resources import files


def read_data_file(name: str) -> bytes:
    """Return the content of a data file."""
    return (files(__package__) / name).read_bytes()
