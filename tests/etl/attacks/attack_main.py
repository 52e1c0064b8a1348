"""The transform: runs the attack that its argument names, as JSON, and prints what happened."""

import errno
import importlib
import json
import sys


def answer(options, function=None):
    """Find the attack and make it; return what happened."""
    attack = options.pop("attack")
    try:
        if function is None:
            module, _, name = attack.partition(".")
            function = getattr(importlib.import_module(module), name)
        return {"happened": function(**options), "error": None}
    except OSError as error:
        return {"happened": None, "error": "{}: {}".format(errno.errorcode.get(error.errno or 0, "?"), error)}
    except MemoryError as error:
        return {"happened": None, "error": repr(error)}
    except Exception as error:
        return {"happened": "the attack itself is broken", "error": repr(error)}


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]))))
