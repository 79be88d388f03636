"""A Sphinx extension that puts buttons on the chapters which open them on Colab and on Binder.

They need to know where the repository is. Where the site is built by GitHub's own machines these
say so (``GITHUB_REPOSITORY``); anywhere else name it: ``RAGBOOK_REPOSITORY=OWNER/NAME make site``.
Without it there are no such buttons, rather than ones that lead nowhere.

They open the branch ``notebooks``: a copy of the repository whose notebooks begin with a cell that
sets them up on Colab (`setup_cells.py`). The workflow ``site`` pushes it.
"""

import os
from collections.abc import Mapping
from typing import Any

from sphinx.config import Config

BRANCH = "notebooks"


def options(environment: Mapping[str, str]) -> dict[str, Any]:
    """The theme's options for the repository that the environment names; none if it names none."""
    repository = environment.get("RAGBOOK_REPOSITORY") or environment.get(
        "GITHUB_REPOSITORY"
    )
    if not repository:
        return {}
    return {
        "repository_url": f"https://github.com/{repository}",
        "repository_branch": environment.get("RAGBOOK_BRANCH", BRANCH),
        "path_to_docs": "book",
        "use_repository_button": True,
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    }


def configure(_app: Any, config: Config) -> None:
    """Add the options to the theme's."""
    config.html_theme_options = {
        **config.html_theme_options,
        **options(os.environ),
    }


def setup(app: Any) -> dict[str, Any]:
    """Register the extension, before the theme reads its options."""
    app.connect("config-inited", configure, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
