"""With RAGBOOK_NO_SKIPS=1, as in continuous integration, a skipped test is a failed test.

What a test needs (a browser, the built site, an optional package) must then be installed. A GPU is
the one thing that may be missing: those tests are skipped with the reason "no GPU".
"""

import os

import pytest
from hypothesis import settings

# How long a drawn case takes says how busy the machine is, not whether the code is right.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# No test cuts the power: what is written is there, though it were never forced to the disk.
os.fsync = lambda fd: None

NO_SKIPS = os.environ.get("RAGBOOK_NO_SKIPS") == "1"


def _without_skip(report):
    """The report of a test or of a module, failed where it was skipped for another reason."""
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if not str(reason).endswith("no GPU"):
            report.outcome = "failed"
            report.longrepr = f"RAGBOOK_NO_SKIPS=1 forbids this skip: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _without_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _without_skip((yield))
