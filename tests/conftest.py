"""Settings of all tests.

In CI, Hypothesis draws the same examples each time, so that a change is judged by what it changes; elsewhere
it looks for new ones. A slow machine is no failure: no example has a deadline.
"""

import os

from hypothesis import settings

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
