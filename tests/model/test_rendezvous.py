"""The home of an object is where NVIDIA's SDK would look for it; a change of the nodes moves few."""

from __future__ import annotations

import pytest

from aistore.model.rendezvous import digest, home, ranked, uname

UNAMES = (
    uname("ais", "mybck", "o"),
    uname("ais", "imagenet", "train/0000001.jpg"),
    uname("ais", "imagenet", "train/0000002.jpg"),
    uname("aws", "lake", "ünï/cødé ☃"),
    uname("gcp", "lake", "a b%20c"),
    uname("azure", "x", "y"),
    uname("ht", "web", "index.html"),
    uname("ais", "a-b_c.d", "deep/" * 20 + "end"),
)

#: What SDK 2.0.0 chose, node by node and name by name (tests/acceptance asks it again).
CHOSEN = {
    ("t1",): ("t1",) * 8,
    ("t1", "t2"): ("t1", "t1", "t1", "t2", "t1", "t2", "t1", "t1"),
    ("t1", "t2", "t3"): ("t1", "t1", "t3", "t3", "t3", "t2", "t1", "t1"),
    ("aWxYbQnT", "kDtPvRsZ", "mBtYcXwL", "qHgJfNkV"): (
        "aWxYbQnT", "mBtYcXwL", "kDtPvRsZ", "kDtPvRsZ", "kDtPvRsZ", "qHgJfNkV", "mBtYcXwL", "kDtPvRsZ",
    ),
    ("node-0", "node-1", "node-2", "node-3", "node-4", "node-5", "node-6"): (
        "node-3", "node-3", "node-5", "node-0", "node-5", "node-3", "node-4", "node-4",
    ),
}  # fmt: skip


def digests(*nodes: str) -> dict[str, int]:
    return {node: digest(node) for node in nodes}


@pytest.mark.parametrize("nodes", CHOSEN)
def test_home_is_where_the_sdk_goes(nodes):
    assert tuple(home(digests(*nodes), name) for name in UNAMES) == CHOSEN[nodes]


def test_digest_and_uname_are_spelt_as_on_the_wire():
    assert digest("t1") == 14214570646889990061
    assert uname("ais", "mybck", "dir/a.txt") == "ais/@#/mybck/dir/a.txt"


def test_order_of_the_nodes_does_not_matter():
    nodes = [f"node-{number}" for number in range(7)]
    for name in UNAMES:
        assert home(digests(*nodes), name) == home(digests(*reversed(nodes)), name)


def test_ranked_is_who_takes_over_in_turn():
    nodes = digests("a", "b", "c", "d")
    for name in UNAMES:
        order = ranked(nodes, name)
        assert sorted(order) == sorted(nodes)
        for gone, successor in enumerate(order[1:], 1):
            left = {node: nodes[node] for node in nodes if node not in order[:gone]}
            assert home(left, name) == successor


def test_a_node_that_joins_takes_its_share_and_no_more():
    names = [uname("ais", "b", f"train/{number:05}.jpg") for number in range(4000)]
    before, after = digests("a", "b", "c"), digests("a", "b", "c", "d")
    moved = [name for name in names if home(before, name) != home(after, name)]
    assert all(home(after, name) == "d" for name in moved)
    assert 850 < len(moved) < 1150  # a quarter, 27 is one standard deviation
    for node in before:
        assert 1180 < sum(home(before, name) == node for name in names) < 1490  # a third, 30 is one


def test_without_nodes_there_is_no_home():
    with pytest.raises(ValueError, match="there is none"):
        home({}, UNAMES[0])
    assert ranked({}, UNAMES[0]) == []
