"""One thread for the little torch that is compared with here."""

from tests.sampling.conftest import one_thread

__all__ = ["one_thread"]
