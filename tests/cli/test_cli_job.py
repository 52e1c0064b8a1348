"""`ais cp`, `ais etl bucket`, `ais show job`, `ais job`: everything they say, word for word."""

from __future__ import annotations


def test_copying_a_bucket(transcript):
    transcript(r"""
        $ ais create ais://jobs; for n in 1 2 3; do printf $n$n | ais put - ais://jobs/train/$n.txt; done > /dev/null
        "ais://jobs" created
        $ ais cp ais://jobs ais://jobs-copy --wait | sed 's/in .*s$/in <s>/'
        Copying ais://jobs => ais://jobs-copy ...
        Done. 3 objects (6B) in <s>
        $ ais ls ais://jobs-copy
        NAME         SIZE
        train/1.txt  2B
        train/2.txt  2B
        train/3.txt  2B
        $ ais cp ais://jobs/train/ ais://jobs-copy/again/ --nv > id; ais job wait $(cat id) | sed -E 's/\[\w+/[<id>/; s/in .*s$/in <s>/'
        Waiting for copy-bucket[<id>] ...
        Done. 3 objects (6B) in <s>
        $ ais ls ais://jobs-copy/again/ --name-only
        again/train/1.txt
        again/train/2.txt
        again/train/3.txt
        $ ais cp ais://jobs ais://jobs-later | sed -E "s/job \w+'/job <id>'/"
        Copying ais://jobs => ais://jobs-later. To monitor the progress, run 'ais show job <id>'
        $ ais cp ais://jobs ais://jobs-none --dry-run
        Dry run: 3 objects (6B); nothing was written
        $ ais ls ais://jobs-none
        ! Error: bucket "ais://jobs-none" does not exist
        ! Hint: `ais create ais://jobs-none` makes it, `ais ls` lists those there are
        [1]
        $ ais show job $(cat id) | tr -s ' ' | cut -d ' ' -f 2-7
        KIND SRC BUCKET DST BUCKET OBJECTS
        copy-bck ais://jobs ais://jobs-copy 3 6B 0
        $ ais show job --json $(cat id) | grep -o '"state": "Finished"'
        "state": "Finished"
        $ ais show job
        ! No running jobs. Use '--all' to show all, finished ones included.
        $ ais show job copy-bucket --all -H | wc -l
        4
        $ ais job stop $(cat id) | sed -E 's/\[\w+/[<id>/'
        copy-bucket[<id>] is already finished, nothing to do
        $ ais job stop copy-bucket
        No running copy-bucket jobs, nothing to do
    """)  # noqa: E501


def test_what_is_refused(transcript):
    transcript(r"""
        $ ais create ais://same; printf 1 | ais put - ais://same/a.jpg; printf 2 | ais put - ais://same/a.txt
        "ais://same" created
        PUT "-" => ais://same/a.jpg
        PUT "-" => ais://same/a.txt
        $ ais cp ais://same ais://same
        ! Error: ais://same is both the source and the destination
        ! Hint: choose another bucket, or dry_run
        [1]
        $ ais cp ais://missing ais://same
        ! Error: bucket "ais://missing" does not exist
        ! Hint: `ais create ais://missing` makes it, `ais ls` lists those there are
        [1]
        $ ais etl bucket missing-etl ais://same/a.jpg ais://other 2>&1 | tail -1
        Error: ais://same/a.jpg names an object: end it with / for all that is under it, or use --prefix
        $ ais cp /tmp/a.jpg ais://other 2>&1 | tail -1
        Error: /tmp/a.jpg is a path: `ais put` and `ais get` copy files, this copies buckets
        $ ais etl bucket missing-etl ais://same ais://other
        ! Error: etl job missing-etl does not exist
        ! Hint: `ais etl list` shows the transforms there are
        [1]
        $ ais job wait nosuchjob1
        ! Error: job 'nosuchjob1' does not exist
        ! Hint: `ais show job --all` shows the jobs there are
        [1]
        $ ais job stop nosuchjob1
        ! Error: job 'nosuchjob1' does not exist
        ! Hint: `ais show job --all` shows the jobs there are
        [1]
        $ ais ls ais://other
        ! Error: bucket "ais://other" does not exist
        ! Hint: `ais create ais://other` makes it, `ais ls` lists those there are
        [1]
    """)


def test_transforming_a_bucket(transcript):
    transcript(r"""
        $ printf 'def transform(data):\n    if data == b"bad":\n        raise ValueError("no")\n    return data * 2\n' > t.py
        $ ais etl init code --name twice-it --from-file t.py 2> /dev/null
        twice-it
        $ ais create ais://in; for n in a bad c; do printf $n | ais put - ais://in/$n.txt; done > /dev/null
        "ais://in" created
        $ ais etl bucket twice-it ais://in ais://out --ext '{txt:two}' --wait 2>&1 | sed -E 's/\[[[:alnum:]]{11}\]/[<id>]/' | grep -v File
        ETL[twice-it]: ais://in => ais://out ...
        Error: etl-bucket[<id>] was aborted: ETL error: twice-it failed on ais://in/bad.txt: Traceback (most recent call last):
            raise ValueError("no")
        ValueError: no
        $ ais etl bucket twice-it ais://in ais://out --ext txt:two --cont-on-err --wait 2>&1 | grep -c 'finished with errors: [01] objects* done, [12] unchanged, 1 object failed'
        1
        $ ais ls ais://out
        NAME   SIZE
        a.two  2B
        c.two  2B
        $ ais etl show errors twice-it
        OBJECT            ECODE  ERROR
        ais://in/bad.txt  422    ETL error: twice-it failed on ais://in/bad.txt: ValueError: no
        $ ais etl bucket twice-it ais://in ais://out --ext '{txt' --wait
        ! Error: --ext '{txt' cannot be read
        ! Hint: expected for example {jpg:txt,png:txt}
        [1]
        $ ais etl rm twice-it
        ETL[twice-it] successfully deleted
    """)  # noqa: E501
