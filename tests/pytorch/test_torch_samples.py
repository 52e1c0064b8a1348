"""Grouping of names into samples, and the table of them: no torch needed."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aistore.errors import SamplesError
from aistore.pytorch.samples import Part, SampleTable, group


def grouped(names, **options) -> list[list[str]]:
    return [list(sample) for sample in group(names, **options).samples]


def test_images_come_first_and_labels_last():
    names = ["t/1.cls", "t/1.jpg", "t/1.npy", "t/1.txt", "t/1"]
    assert grouped(names) == [["t/1.jpg", "t/1", "t/1.npy", "t/1.cls", "t/1.txt"]]


def test_parts_of_a_sample_need_not_be_neighbours_in_the_listing():
    # '-' sorts before '.', so 1-2.* lie between nothing, but 1.b.* lies between 1.a and 1.cls
    names = sorted(["1.cls", "1.jpg", "1.foo.cls", "1.foo.jpg", "1-2.cls", "1-2.jpg"])
    assert grouped(names) == [["1-2.jpg", "1-2.cls"], ["1.jpg", "1.cls"], ["1.foo.jpg", "1.foo.cls"]]


def test_pictures_of_different_formats_are_the_same_part():
    assert grouped(["1.JPEG", "1.cls", "2.cls", "2.png"]) == [["1.JPEG", "1.cls"], ["2.png", "2.cls"]]


def test_a_missing_part_is_one_error_with_examples():
    names = [f"{i:03}.jpg" for i in range(20)] + [f"{i:03}.cls" for i in range(10)]
    with pytest.raises(SamplesError) as caught:
        group(names)
    assert "10 of 20 samples do not have the parts image, .cls" in str(caught.value)
    assert "for example 010 has image; 011 has image; 012 has image" in str(caught.value)
    assert 'incomplete="drop"' in caught.value.hint


def test_dropping_leaves_out_samples_that_lack_a_part():
    names = ["1.jpg", "1.cls", "2.jpg", "3.jpg", "3.cls"]
    found = group(names, drop_incomplete=True)
    assert list(found.samples) == [("1.jpg", "1.cls"), ("3.jpg", "3.cls")]
    assert found.dropped == 1


@pytest.mark.parametrize(
    "names",
    [
        ["1.jpg", "1.cls", "2.jpg", "3.jpg"],  # would drop most
        ["1.jpg", "1.cls", "2.jpg", "2.txt"],  # neither lacks only
    ],
)
def test_dropping_refuses_what_is_no_incomplete_sample(names):
    with pytest.raises(SamplesError, match="say what a sample is"):
        group(names, drop_incomplete=True)


def test_parts_choose_and_order():
    names = ["1.jpg", "1.cls", "1.json", "2.jpg", "2.cls", "README.md"]
    assert grouped(names, parts=(".cls", ".JPG")) == [["1.cls", "1.jpg"], ["2.cls", "2.jpg"]]
    with pytest.raises(SamplesError, match=r"1 of 2 samples do not have the parts .jpg, .json: 2 has .jpg, .cls"):
        group(names, parts=(".jpg", ".json"))


def test_a_stray_file_is_named_with_what_helps():
    with pytest.raises(SamplesError, match=r"1 of 3 samples .*: classes has \.txt") as caught:
        group(["classes.txt", "train/1.jpg", "train/1.cls", "train/2.jpg", "train/2.cls"])
    assert "prefix=" in caught.value.hint


def test_two_names_that_differ_in_case_of_the_extension_are_two_parts():
    with pytest.raises(SamplesError, match="1 of 2 samples"):
        group(["1.jpg", "1.JPG", "2.jpg"])


def test_nothing_gives_nothing():
    assert grouped([]) == []
    assert len(SampleTable([], bool)) == 0


@given(st.lists(st.lists(st.text(min_size=1), min_size=2, max_size=2), max_size=20))
def test_the_table_gives_back_every_name(samples):
    table = SampleTable(samples, lambda name: name > "m")
    expected = [tuple(Part(name, name > "m") for name in sample) for sample in samples]
    for copy in (table, pickle.loads(pickle.dumps(table))):
        assert list(copy) == expected
        assert len(copy) == len(samples)
        assert copy.transformed_count == sum(part.transformed for sample in expected for part in sample)
    for wrong in (len(samples), -len(samples) - 1):
        with pytest.raises(IndexError, match="of a dataset of"):
            table[wrong]
    if samples:
        assert table[-1] == expected[-1]
