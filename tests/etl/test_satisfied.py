import sys

import packaging
import pytest
from packages import install_by_hand

from aistore.etl.environments.requirements import parse_requirements
from aistore.etl.environments.satisfied import satisfied_by_serving


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return str(tmp_path)


def satisfied(text):
    packages = satisfied_by_serving(parse_requirements(text))
    return None if packages is None else {package.name: package.version for package in packages}


def test_what_is_installed_satisfies():
    assert satisfied("packaging") == {"packaging": packaging.__version__}
    assert satisfied(f"Packaging=={packaging.__version__}\npackaging>=1") == {"packaging": packaging.__version__}


@pytest.mark.parametrize("text", ["packaging<1", "packaging==0.1", "packaging\nno-such-package", "packaging>=1,<2"])
def test_what_is_missing_or_of_another_version_does_not(text):
    assert satisfied(text) is None


def test_dependencies_are_followed(site):
    install_by_hand(site, "aa", "1.0", ["bb>=2"])
    install_by_hand(site, "bb", "2.1", ["cc"])
    assert satisfied("aa") is None
    install_by_hand(site, "cc", "3.0", ["aa"])  # in a circle
    assert satisfied("aa") == {"aa": "1.0", "bb": "2.1", "cc": "3.0"}


def test_a_broken_dependency_does_not_satisfy(site):
    install_by_hand(site, "aa", "1.0", ["bb>=3"])
    install_by_hand(site, "bb", "2.1")
    assert satisfied("bb") == {"bb": "2.1"}
    assert satisfied("aa") is None


def test_extras_are_followed_when_asked_for(site):
    install_by_hand(site, "aa", "1.0", ['bb ; extra == "more"', 'cc ; extra == "rest"'], ["more", "rest"])
    install_by_hand(site, "bb", "2.0")
    assert satisfied("aa") == {"aa": "1.0"}
    assert satisfied("aa[more]") == satisfied("aa\naa[more]") == {"aa": "1.0", "bb": "2.0"}
    assert satisfied("aa[rest]") is None
    assert satisfied("aa[more,rest]") is None


def test_markers_decide(site):
    install_by_hand(site, "aa", "1.0", ["zz ; python_version < '3'", f"bb ; sys_platform == '{sys.platform}'"])
    install_by_hand(site, "bb", "1.0")
    assert satisfied("aa") == {"aa": "1.0", "bb": "1.0"}
    assert satisfied("aa\nzz ; python_version < '3'") == {"aa": "1.0", "bb": "1.0"}
    assert satisfied("zz ; python_version >= '3'") is None
    assert satisfied("zz ; extra == 'never'") == {}


def test_a_prerelease_that_is_installed_counts(site):
    install_by_hand(site, "aa", "2.0rc1")
    assert satisfied("aa>1") == {"aa": "2.0rc1"}


@pytest.mark.parametrize(
    "text",
    [
        "packaging --hash=sha256:00",
        "https://wheels.example/packaging-1-py3-none-any.whl",
        "packaging @ https://a.example/p",
    ],
)
def test_what_only_a_download_can_meet_does_not(text):
    assert satisfied(text) is None
