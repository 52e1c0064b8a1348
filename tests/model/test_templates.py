"""Names from templates."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from aistore.errors import BadRequestError
from aistore.model.templates import expand_braces, expand_template

SHELL = [
    "plain",
    "shard-{000..011}.tar",
    "{a..e}",
    "{e..a}",
    "{0..10..3}",
    "{10..0..4}",
    "{-2..2}",
    "{-02..2}",
    "{01..1}",
    "x{a,b}y{1..2}",
    "{a,{b,c}d}e",
    "{a,}z",
    "{single}",
    "{",
    "a{b",
    "}{1..2}",
    "{{1..2}",
    "{1..a}",
    "{}",
    "{a..e..2}",
]


@pytest.mark.parametrize("template", SHELL)
def test_braces_expand_as_in_a_shell(template):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash to compare with")
    shell = subprocess.run([bash, "-c", f"printf '%s\\n' {template}"], capture_output=True, text=True, check=True)
    assert list(expand_braces(template)) == shell.stdout.splitlines()


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("a-{0..3}", ["a-0", "a-1", "a-2", "a-3"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{0..100..50}", ["0", "50", "100"]),
        ("{000..100..50}.x", ["000.x", "050.x", "100.x"]),
        ("{0..1}-{0..1}", ["0-0", "0-1", "1-0", "1-1"]),
        ("i-@02.jpg", ["i-00.jpg", "i-01.jpg", "i-02.jpg"]),
    ],
)
def test_numbered_templates(template, names):
    expanded = expand_template(template)
    assert expanded is not None
    assert list(expanded) == names


def test_text_without_numbers_is_a_prefix():
    assert expand_template("train/") is None
    assert expand_template("") is None


@pytest.mark.parametrize(
    "template", ["{a,b}", "{a..c}", "{3..1}", "{1..3..0}", "{1..2", "{0..99999999}", "{1..5000}{1..5000}"]
)
def test_other_templates_are_refused(template):
    with pytest.raises(BadRequestError, match="template"):
        expand_template(template)
