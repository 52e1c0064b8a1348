import pytest

from aistore.errors import BadRequestError
from aistore.etl.environments.requirements import mask_credentials, parse_requirements


def test_a_list_is_read_as_pip_reads_it():
    text = (
        "\ufeff# what we need\n"
        "pillow>=10  # images\n"
        "\n"
        "requests[socks] ; \\\n"
        "    python_version >= '3.8'\n"
        "-i https://user:word@index.example/simple\n"
        "--extra-index-url=https://more.example --pre\n"
        "-f https://wheels.example/\n"
        "torch @ https://wheels.example/torch-2.13.0.whl#sha256=00\n"
        "https://wheels.example/bare-1.0-py3-none-any.whl\n"
        "git+https://git.example/thing@v1\n"
        "six==1.17.0 --hash=sha256:aa --hash sha256:bb\n"
    )
    found = parse_requirements(text)
    assert [(entry.line, entry.text) for entry in found.entries] == [
        (2, "pillow>=10"),
        (4, "requests[socks] ;      python_version >= '3.8'"),
        (9, "torch @ https://wheels.example/torch-2.13.0.whl#sha256=00"),
        (10, "https://wheels.example/bare-1.0-py3-none-any.whl"),
        (11, "git+https://git.example/thing@v1"),
        (12, "six==1.17.0"),
    ]
    assert found.entries[-1].hashes == ("sha256:aa", "sha256:bb")
    assert found.options == (
        "--index-url https://user:word@index.example/simple",
        "--extra-index-url https://more.example",
        "--pre",
        "--find-links https://wheels.example/",
    )
    assert parse_requirements(found.text()).text() == found.text()


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "\\\n"])
def test_an_empty_list_has_no_entries(text):
    assert parse_requirements(text).entries == ()


@pytest.mark.parametrize(
    "line",
    [
        "-r more.txt", "-rmore.txt", "--requirement=more.txt", "-c limits.txt", "--constraint limits.txt", "-e .",
        "-e.", "--editable git+https://git.example/x", "./thing", "../thing.whl", "/etc/passwd", "~/thing", "file:///etc/passwd",
        "thing @ file:///etc/passwd", "FILE:///etc/passwd", "thing @ FILE:///x", "--find-links /opt/wheels",
        "--find-links file:///opt", "--index-url /opt/simple", "git+file:///srv/repository", "git+ssh://git@host/x",
        "ssh://host/x", "thing @ git+ssh://git@host/x", "six --global-option=x", "six --config-settings a=b",
        "https://host/x.whl -C a=b", "https://host/x.whl -e .", "https://host/x.whl\t--global-option=x",
        "--cache-dir /tmp", "--target /tmp", "--pre=1", "--index-url", "--index-url --pre", "'six",
        "--index-url https://index.example/${AWS_SECRET_ACCESS_KEY}", "six==${VERSION}", "-", "--", "thing.whl/x",
    ],
)  # fmt: skip
def test_what_the_store_cannot_honour_is_refused(line):
    with pytest.raises(BadRequestError, match="dependencies, line 2, ") as caught:
        parse_requirements(f"six\n{line}\n")
    assert caught.value.hint


@pytest.mark.parametrize(
    "line", ["pillow=>10", "two words", "six==", "six;", "six[", "==1.0", "é==1", "six==1.0 ; os=='x'"]
)
def test_bad_syntax_names_the_line(line):
    with pytest.raises(BadRequestError, match="line 3") as caught:
        parse_requirements(f"six\n\n{line}\nidna")
    assert line in str(caught.value)


def test_a_list_that_is_too_long_is_refused():
    with pytest.raises(BadRequestError, match="too long"):
        parse_requirements("six\n" * 300_000)


def test_errors_do_not_show_passwords():
    with pytest.raises(BadRequestError) as caught:
        parse_requirements("--index-url ftp://user:secret@index.example/simple")
    assert "secret" not in str(caught.value)
    assert "****@index.example" in str(caught.value)


def test_credentials_are_masked_wherever_they_stand():
    text = "Looking in indexes: https://u:p@a.example/simple, https://token@b.example, git+https://t@c.example/r.git@v1"
    assert mask_credentials(text) == (
        "Looking in indexes: https://****@a.example/simple, https://****@b.example, git+https://****@c.example/r.git@v1"
    )
    assert mask_credentials("https://a.example/x@y a@b.example") == "https://a.example/x@y a@b.example"


def test_credentials_by_host():
    found = parse_requirements(
        "x @ https://u:p@a.example:8443/x.whl\ngit+https://t@c.example/r.git@v1\nhttps://d.example/x"
    )
    assert found.credentials() == {"a.example:8443": "u:p", "c.example": "t"}
