"""What every test stands on: the same property examples in every run, and signals as a terminal has them."""

import signal

from hypothesis import settings

# A red build means a change and not luck.
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
