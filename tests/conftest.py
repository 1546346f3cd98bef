"""Property tests draw the same examples in every run, so that a red build means a change and not luck."""

from hypothesis import settings

settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")
