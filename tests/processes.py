"""What processes that tests start need of ours."""

import os

MEASURED = {name: value for name, value in os.environ.items() if name == "COVERAGE_PROCESS_CONFIG"}
"""For the environment of a Python of ours, so that what it runs counts as covered. Empty without `make test`.

Not for the sidecar's: each is a process for some milliseconds, and its code is run in the tests' own too.
"""
