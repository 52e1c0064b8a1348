"""Random state of a forked worker: without new seeds all workers would draw the same numbers."""

import os
import sys


def reseed() -> None:
    """Seed ``random``, NumPy's legacy generator and torch's default generator from the kernel, where they are loaded.

    ``torch.manual_seed`` would walk every accelerator (200 µs); its CPU generator alone takes 5 µs.
    """
    if "random" in sys.modules:
        sys.modules["random"].seed(int.from_bytes(os.urandom(32), "little"))
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(int.from_bytes(os.urandom(4), "little"))
    torch = sys.modules.get("torch")
    generator = getattr(torch, "default_generator", None)
    if generator is not None:
        generator.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
