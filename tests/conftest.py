"""What every test stands on: the same property examples in every run, and signals as a terminal has them."""

import signal

from hypothesis import settings

# A red build means a change and not luck.
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")

# Background jobs ignore Ctrl-C, jobs under nohup a hang-up too, and so would every process that a test starts: a
# signal that is ignored stays so in children, one that is handled does not.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
