"""`ais etl object 'a >> b'`, `ais etl object ETL cp`, `ais cp` of one object, jobs on chosen objects: word for word."""

from __future__ import annotations

import pytest

UPPER = """
def transform(data, etl_args):
    return data.upper() + etl_args.encode()
"""
BACK = """
def transform(data):
    if data == b"bad":
        raise ValueError("no")
    return data[::-1]
"""


@pytest.fixture
def etls(shell):
    for name, code in (("upper-it", UPPER), ("back-it", BACK)):
        assert shell(f"printf '{code}' > {name}.py; ais etl init code --name {name} --from-file {name}.py").stdout
    shell("ais create ais://line; printf bad | ais put - ais://line/bad")
    shell("for n in 1 2 3; do printf word$n | ais put - ais://line/train/$n.txt; done")
    yield
    shell("ais etl rm upper-it back-it; ais rmb ais://line ais://lined -y --ignore-error")


def test_one_object(transcript, etls):
    transcript(r"""
        $ ais etl object 'upper-it >> back-it' ais://line/train/1.txt -; echo
        1DROW
        $ ais etl object upper-it,back-it ais://line/train/1.txt out --args '!' && cat out
        !1DROW
        $ ais etl object 'back-it >> upper-it' ais://line/bad - 2>&1 | grep -v File
        Error: ETL error: back-it failed on ais://line/bad: Traceback (most recent call last):
            raise ValueError("no")
        ValueError: no
        $ ais etl object 'upper-it >> missing-it' ais://line/train/1.txt -
        ! Error: etl job missing-it does not exist
        ! Hint: `ais etl list` shows the transforms there are
        [1]
        $ ais etl object 'upper-it >> upper-it' ais://line/train/1.txt -
        ! Error: invalid pipeline 'upper-it,upper-it': upper-it is in it twice, which is a loop
        ! Hint: make the transform again under another name if an object shall go through it twice
        [1]
        $ ais etl object 'upper-it >>' ais://line/train/1.txt -
        ! Error: invalid pipeline 'upper-it,': its stage 2 is empty
        ! Hint: expected names with commas between: resize,gray
        [1]
        $ ais create ais://lined
        "ais://lined" created
        $ ais etl object upper-it cp ais://line/train/1.txt ais://lined --args '?'
        ETL[upper-it]: ais://line/train/1.txt => ais://lined/train/1.txt
        $ ais etl object 'upper-it >> back-it' cp ais://line/train/1.txt ais://lined/one
        ETL[upper-it >> back-it]: ais://line/train/1.txt => ais://lined/one
        $ ais cp ais://line/train/2.txt ais://lined/two
        COPY ais://line/train/2.txt => ais://lined/two
        $ ais object cp ais://line/train/2.txt ais://lined/below/
        COPY ais://line/train/2.txt => ais://lined/below/train/2.txt
        $ for n in train/1.txt one two below/train/2.txt; do ais object cat ais://lined/$n; echo; done
        WORD1?
        1DROW
        word2
        word2
        $ ais etl object upper-it cp ais://line/train/1.txt ais://line
        ! Error: ais://line/train/1.txt is both the source and the destination
        ! Hint: choose another name or bucket
        [1]
        $ ais etl object upper-it cp ais://line ais://lined
        ! Error: 'ais://line' names no object
        ! Hint: expected for example ais://line/NAME
        [1]
        $ ais etl object upper-it ais://line/train/1.txt 2>&1 | tail -1
        Error: expected: ais etl object upper-it BUCKET/NAME FILE
        $ ais etl object upper-it cp ais://line/train/1.txt 2>&1 | tail -1
        Error: expected: ais etl object upper-it cp BUCKET/NAME BUCKET[/NAME]
        $ ais cp ais://line/train/1.txt ais://lined --dry-run 2>&1 | tail -1
        Error: ais://line/train/1.txt names one object: --dry-run is for many
        $ ais cp ais://line/train/1.txt ais://missing
        ! Error: bucket "ais://missing" does not exist
        ! Hint: `ais create ais://missing` makes it, `ais ls` lists those there are
        [1]
    """)


def test_chosen_objects(transcript, etls):
    transcript(r"""
        $ ais etl bucket 'upper-it >> back-it' ais://line ais://lined --list train/1.txt,train/3.txt --wait | sed 's/in .*s$/in <s>/'
        ETL[upper-it >> back-it]: ais://line (2 objects) => ais://lined ...
        Done. 2 objects (10B) in <s>
        $ ais etl bucket upper-it ais://line 'ais://lined/t/' --template 'train/{1..2}.txt' --args '!' --wait | sed 's/in .*s$/in <s>/'
        ETL[upper-it]: ais://line/train/{1..2}.txt => ais://lined/t/ ...
        Done. 2 objects (12B) in <s>
        $ ais cp 'ais://line/train/{2..3}.txt' ais://lined --prepend c/ --wait | sed 's/in .*s$/in <s>/'
        Copying ais://line/train/{2..3}.txt => ais://lined ...
        Done. 2 objects (10B) in <s>
        $ ais ls ais://lined --name-only
        c/train/2.txt
        c/train/3.txt
        t/train/1.txt
        t/train/2.txt
        train/1.txt
        train/3.txt
        $ ais object cat ais://lined/t/train/2.txt; echo
        WORD2!
        $ ais cp ais://line ais://lined --list train/1.txt,none --wait 2>&1 | sed -E 's/\[[[:alnum:]]{11}\]/[<id>]/'
        Copying ais://line (2 objects) => ais://lined ...
        Error: copy-objects[<id>] was aborted: ais://line/none does not exist
        $ ais cp ais://line ais://lined --list train/1.txt --prefix train/ 2>&1 | tail -1
        Error: choose the objects once: in the bucket's URI, or by --prefix, --list or --template
        $ ais cp ais://line ais://lined --template '{a..b}'
        ! Error: template '{a..b}' is not understood
        ! Hint: expected numbers in braces, for example {0000..0100..2}
        [1]
        $ ais etl inspect 'back-it >> upper-it' ais://line --wait 2>&1 | sed -E 's/\[[[:alnum:]]{11}\]/[<id>]/; s/ID|job \w{11}/<id>/' | grep -v File
        Inspecting ais://line with ETL[back-it >> upper-it] ...
        Error: etl-bucket[<id>] finished with errors: 3 objects done, 1 object failed, the first of them: ETL error: back-it failed on ais://line/bad: Traceback (most recent call last):
            raise ValueError("no")
        ValueError: no
        Hint: `ais show <id> --errors` shows the objects that failed
        $ ais etl show errors upper-it
        OBJECT          ECODE  ERROR
        ais://line/bad  422    ETL error: back-it failed on ais://line/bad: ValueError: no
        $ ais etl inspect back-it ais://line/train/ | sed -E "s/job \w{11}/job <id>/; s/it \w{11}/it <id>/"
        Inspecting ais://line/train/ with ETL[back-it]. To monitor the progress, run 'ais show job <id>'; `ais etl show errors back-it <id>` shows the objects that failed
    """)  # noqa: E501
