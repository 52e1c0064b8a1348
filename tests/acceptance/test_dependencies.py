"""A transform's dependencies come from the package index, once."""

from __future__ import annotations

import pytest
from person import Index, Shell

pytestmark = pytest.mark.slow

CODE = "import sys, cowsay\nprint(cowsay.get_output_string('cow', sys.stdin.read()))\n"


INIT = "ais etl init code --name {} --from-file say.py --deps-file deps.txt --runtime python3 --comm-type io://"


def test_the_same_list_is_installed_once(module_shell: Shell, index: Index):
    (module_shell.directory / "say.py").write_text(CODE)
    (module_shell.directory / "deps.txt").write_text("cowsay==6.1\n")
    module_shell("ais create ais://words && printf moo | ais put - ais://words/moo")

    assert module_shell.init_stages(INIT.format("first-say")) == ["resolving", "installing", "importing", "ready"]
    assert "installing" not in module_shell.init_stages(INIT.format("second-say"))

    for name in ("first-say", "second-say"):
        assert "| moo |" in module_shell(f"ais etl object {name} ais://words/moo -")
    module_shell("ais etl rm first-say")
    assert "installing" not in module_shell.init_stages(INIT.format("third-say")), (
        "the environment went with one of its transforms"
    )
