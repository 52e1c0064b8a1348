"""`ais` on buckets and objects: everything it says, word for word."""

from __future__ import annotations


def test_a_first_session(transcript):
    transcript("""
        $ ais create ais://first
        "ais://first" created
        $ ais create ais://first
        ! Error: bucket "ais://first" already exists
        [1]
        $ ais create first --ignore-error
        "ais://first" created
        $ ais ls ais: | grep -E 'NAME|first' | tr -s ' '
        NAME PRESENT
        ais://first yes
        $ ais ls ais://first
        ! No objects in ais://first
        $ ais ls ais://first --json
        []
        $ head -c 18309 /dev/zero > 0000353.jpg; printf 5 > 0000353.cls
        $ ais put 0000353.jpg ais://first/train/
        PUT "0000353.jpg" => ais://first/train/0000353.jpg
        $ ais put 0000353.cls ais://first/train/0000353.cls
        PUT "0000353.cls" => ais://first/train/0000353.cls
        $ ais ls ais://first
        NAME               SIZE
        train/0000353.cls  1B
        train/0000353.jpg  17.88KiB
        $ ais ls ais://first/train/0000353.j -H
        train/0000353.jpg  17.88KiB
        $ ais ls ais://first --prefix val
        ! No objects in ais://first that start with 'val'
        $ ais get ais://first/train/0000353.jpg
        GET train/0000353.jpg from ais://first as 0000353.jpg (17.88KiB)
        $ ais get ais://first/train/0000353.cls -; echo
        5
        $ ais rmo ais://first/train/0000353.cls
        deleted "train/0000353.cls" from ais://first
        $ ais rmo ais://first/train/0000353.cls
        ! Error: ais://first/train/0000353.cls does not exist
        ! Hint: did you mean ais://first/train/0000353.jpg?
        [1]
        $ ais rmb ais://first
        ! Usage: ais rmb [OPTIONS] BUCKET...
        ! Try 'ais rmb --help' for help.
        !
        ! Error: this removes ais://first with all objects: pass -y to confirm
        [2]
        $ ais rmb ais://first -y
        "ais://first" destroyed
        $ ais rmb ais://first -y
        ! Error: bucket "ais://first" does not exist
        ! Hint: `ais create ais://first` makes it, `ais ls` lists those there are
        [1]
        $ ais rmb ais://first --ignore-error -y
        "ais://first" destroyed
    """)


def test_put_of_many_files(transcript):
    transcript("""
        $ mkdir -p data/sub/deep; printf 1 > data/a.cls; printf 12345 > data/a.jpg; printf x > data/sub/deep/b
        $ ais create ais://many
        "ais://many" created
        $ ais put data ais://many
        Files to upload:
        EXTENSION  COUNT  SIZE
        .cls       1      1B
        .jpg       1      5B
        TOTAL      2      6B
        PUT 2 files (6B) => ais://many
        ! 1 directory skipped: use -r to put what is in it
        $ mkdir data/more; ais put data ais://many --dry-run
        PUT "data/a.cls" => ais://many/a.cls (dry run)
        PUT "data/a.jpg" => ais://many/a.jpg (dry run)
        ! 2 directories skipped: use -r to put what is in them
        $ rmdir data/more; ais put -r data ais://many/all --include-src-dir
        Files to upload:
        EXTENSION  COUNT  SIZE
        -          1      1B
        .cls       1      1B
        .jpg       1      5B
        TOTAL      3      7B
        PUT 3 files (7B) => ais://many
        $ ais put 'data/*.jpg' ais://many/globbed/ --custom label=cat
        PUT "data/a.jpg" => ais://many/globbed/a.jpg
        $ ais put data/sub/deep/b ais://many/x/ --dry-run
        PUT "data/sub/deep/b" => ais://many/x/b (dry run)
        $ ais ls ais://many --name-only
        a.cls
        a.jpg
        all/data/a.cls
        all/data/a.jpg
        all/data/sub/deep/b
        globbed/a.jpg
        $ ais ls ais://many --limit 2 --props name,version,size
        NAME   VERSION  SIZE
        a.cls  1        1B
        a.jpg  1        5B
        $ ais ls ais://many --json --limit 2
        [
        {"name": "a.cls", "size": 1},
        {"name": "a.jpg", "size": 5}
        ]
        $ ais ls ais://many --count-only
        Listed 6 names (18B)
        $ ais ls ais://many/all --count-only --json
        {
          "objects": 3,
          "size": 7
        }
        $ ais get ais://many --prefix all/ out
        GET 3 objects (7B) from ais://many into out
        $ diff -r data out/all/data
        $ ais get ais://many/none/ out
        ! No objects in ais://many that start with 'none/'
        $ ais rmo ais://many --list a.cls,nope,a.jpg --cont-on-err -y
        deleted 2 objects from ais://many
        ! Error: ais://many/nope does not exist
        ! Error: 1 not deleted, 2 deleted
        [1]
        $ ais rmo ais://many --prefix all/ -y
        deleted 3 objects from ais://many
        $ ais rmo ais://many --all -y
        deleted 1 object from ais://many
    """)


def test_put_that_cannot_be(transcript):
    transcript("""
        $ ais create ais://put; mkdir -p d/e f/e; touch d/e/x f/x
        "ais://put" created
        $ ais put missing ais://put
        ! Error: missing: no such file or directory
        [1]
        $ ais put f/x
        ! Usage: ais put [OPTIONS] FILE|DIRECTORY|-... BUCKET[/NAME|/DIRECTORY/]
        ! Try 'ais put --help' for help.
        !
        ! Error: the bucket is missing: ais put f/x ais://BUCKET
        [2]
        $ ais put ais://put 2>&1 | tail -1
        Error: what to put is missing: ais put FILE ais://put
        $ ais put f/x ais:/put
        ! Error: 'ais:/put' is no bucket
        ! Hint: did you mean ais://put?
        [1]
        $ ais put d ais://put
        ! Error: no files in d
        ! Hint: -r goes into the directories in it
        [1]
        $ ais put f/x d/e/x ais://put
        ! Error: f/x and d/e/x would both become ais://put/x
        [1]
        $ ais put f/x ais://nowhere
        ! Error: bucket "ais://nowhere" does not exist
        ! Hint: `ais create ais://nowhere` makes it, `ais ls` lists those there are
        [1]
        $ ais put -r f ais://nowhere
        Files to upload:
        EXTENSION  COUNT  SIZE
        -          1      0B
        TOTAL      1      0B
        ! Error: bucket "ais://nowhere" does not exist
        ! Hint: `ais create ais://nowhere` makes it, `ais ls` lists those there are
        [1]
        $ ais put f/x s3://put
        ! Error: bucket "s3://put" does not exist
        ! Hint: `ais create s3://put` makes it, `ais ls` lists those there are
        [1]
        $ ais put f/x ais://put --custom label
        ! Usage: ais put [OPTIONS] FILE|DIRECTORY|-... BUCKET[/NAME|/DIRECTORY/]
        ! Try 'ais put --help' for help.
        !
        ! Error: custom metadata is given as KEY=VALUE, each key once
        [2]
        $ echo hi | ais put - ais://put
        ! Error: standard input has no name
        ! Hint: name the object: ais://put/NAME
        [1]
        $ echo hi | ais put - ais://put/from/stdin
        PUT "-" => ais://put/from/stdin
        $ ais object cat ais://put/from/stdin --offset 1
        i
        $ ais put f/x ais://put/../x
        ! Error: object name '../x' has '.', '..' or a leading '~/' as a path component
        [1]
    """)


def test_showing_objects_and_buckets(transcript):
    transcript("""
        $ ais create ais://show; printf hello | ais put - ais://show/o
        "ais://show" created
        PUT "-" => ais://show/o
        $ ais object show ais://show/o
        PROPERTY  VALUE
        atime     <time>
        checksum  xxhash2[26c7827d889f6da3]
        name      ais://show/o
        size      5B
        $ ais object set-custom ais://show/o label=cat by=me
        Custom props successfully updated (to show updates, run 'ais show object ... --props=all').
        $ ais show object ais://show/o --props custom,version -H
        custom   label=cat, by=me
        version  1
        $ ais object set-custom ais://show/o a=b --set-new-custom
        Custom props successfully updated (to show updates, run 'ais show object ... --props=all').
        $ ais show object ais://show/o --props custom,size,checksum --json
        {
          "custom": {
            "a": "b"
          },
          "size": 5,
          "checksum": {
            "type": "xxhash2",
            "value": "26c7827d889f6da3"
          }
        }
        $ ais object show ais://show
        ! Error: 'ais://show' names no object
        ! Hint: expected for example ais://show/NAME
        [1]
        $ ais object show ais://show/missing
        ! Error: ais://show/missing does not exist
        [1]
        $ ais show bucket ais://show | grep -E 'created|name|provider|PROP' | grep -v backend
        PROPERTY      VALUE
        created       <time>
        name          show
        provider      ais
        $ ais bucket show ais://show/o
        ! Error: 'ais://show/o' names an object
        ! Hint: expected a bucket: ais://show
        [1]
        $ ais bucket show ais://missing
        ! Error: bucket "ais://missing" does not exist
        ! Hint: `ais create ais://missing` makes it, `ais ls` lists those there are
        [1]
        $ ais bucket ls ais://show
        NAME  SIZE
        o     5B
        $ ais object rm ais://show/o
        deleted "o" from ais://show
    """)


def test_nothing_is_removed_unasked(transcript):
    """There is no terminal here to ask on."""
    transcript("""
        $ ais create ais://unasked; printf x | ais put - ais://unasked/o
        "ais://unasked" created
        PUT "-" => ais://unasked/o
        $ ais rmo ais://unasked/o ais://unasked
        ! Error: 'ais://unasked' names no object
        ! Hint: all objects of a bucket: ais rmo ais://unasked --all
        [1]
        $ ais rmo ais://unasked/dir/
        ! Error: 'ais://unasked/dir/' names no object
        ! Hint: all that start with it: ais rmo ais://unasked --prefix dir/
        [1]
        $ ais rmo ais://unasked --all 2>&1 | tail -1
        Error: this removes all objects of ais://unasked: pass -y to confirm
        $ ais rmo ais://unasked --prefix o 2>&1 | tail -1
        Error: this removes all objects of ais://unasked that start with 'o': pass -y to confirm
        $ ais rmo ais://unasked --list o,p 2>&1 | tail -1
        Error: this removes the objects 'o,p' of ais://unasked: pass -y to confirm
        $ ais rmo ais://unasked --template '{0..9}'
        ! Usage: ais rmo [OPTIONS] BUCKET[/NAME]...
        ! Try 'ais rmo --help' for help.
        !
        ! Error: this removes the objects '{0..9}' of ais://unasked: pass -y to confirm
        [2]
        $ ais ls ais://unasked --name-only
        o
    """)


def test_templates(transcript):
    transcript("""
        $ ais create ais://templates; for i in 08 09 10; do printf x | ais put - ais://templates/s-$i; done
        "ais://templates" created
        PUT "-" => ais://templates/s-08
        PUT "-" => ais://templates/s-09
        PUT "-" => ais://templates/s-10
        $ ais rmo ais://templates --template 's-{08..09}' -y
        deleted 2 objects from ais://templates
        $ ais rmo ais://templates --template 's-{a,b}'
        ! Error: template 's-{a,b}' is not understood
        ! Hint: expected numbers in braces, for example {0000..0100..2}
        [1]
        $ ais rmo ais://templates --template s- -y
        deleted 1 object from ais://templates
        $ ais rmo ais://templates --all --prefix x
        ! Usage: ais rmo [OPTIONS] BUCKET[/NAME]...
        ! Try 'ais rmo --help' for help.
        !
        ! Error: --prefix, --list, --template and --all exclude each other
        [2]
    """)


def test_hostile_names_stay_inside(transcript, cli_store):
    from aistore.client import Client

    with Client(cli_store.endpoint) as client:
        bucket = client.bucket("hostile").create()
        for name in ("/absolute", "a//b", "ok", "x/\x1b[31mred\nline", "n" * 300):
            bucket.object(name).put(b"data")
    transcript(r"""
        $ ais ls ais://hostile --name-only | cut -c 1-40
        /absolute
        a//b
        nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn
        ok
        x/\x1b[31mred\nline
        $ ais get ais://hostile --prefix '' out --cont-on-err --num-workers 1 2>&1 | cut -c 1-59
        Error: ais://hostile//absolute: object name '/absolute' can
        Error: ais://hostile/a//b: object name 'a//b' cannot be the
        Error: ais://hostile/nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn
        GET 2 objects (8B) from ais://hostile into out
        Error: 3 not got, 2 got
        $ ais get ais://hostile --prefix '' out --num-workers 1 2>&1 | cut -c 1-72
        Error: ais://hostile//absolute: object name '/absolute' cannot be the pa
        GET 0 objects (0B) from ais://hostile into out
        Error: 1 not got, 0 got
        Hint: it stopped at the first error; --cont-on-err goes on with the rest
        $ ls out
        ok
        x
    """)


def test_downloads_are_whole_or_absent(transcript):
    transcript("""
        $ ais create ais://whole; printf old > file; mkdir dir; printf data | ais put - ais://whole/o
        "ais://whole" created
        PUT "-" => ais://whole/o
        $ ais get ais://whole/missing file
        ! Error: ais://whole/missing does not exist
        [1]
        $ cat file; ls -A
        olddir
        file
        $ ais get ais://whole/o file; cat file
        GET o from ais://whole as file (4B)
        data
        $ ais get ais://whole/o dir
        GET o from ais://whole as dir/o (4B)
        $ ais get ais://whole/o file --offset 1 --length 2; cat file
        GET o from ais://whole as file (2B)
        at
        $ ais get ais://whole/o file --offset 9
        ! Error: range 'bytes=9-' is outside the object of 4 bytes
        [1]
        $ ais get ais://whole/o file/below
        ! Error: file/below: Not a directory
        [1]
        $ ais get ais://whole/o /dev/null
        GET o from ais://whole as /dev/null (4B)
        $ ais get ais://whole/o new/deep/
        GET o from ais://whole as new/deep/o (4B)
        $ ais get ais://whole --prefix '' -
        ! Error: several objects cannot go to standard output
        ! Hint: name a directory
        [1]
        $ find . -name '*.part'
    """)


def test_cluster(transcript):
    transcript("""
        $ ais show cluster | sed 's/^p[^ ]*  /PROXY  /; s/^t[^ ]*  /TARGET  /'
        NODE       TYPE    PUBLIC URL
        PROXY  proxy   <endpoint>
        TARGET  target  <endpoint>

        Summary:
          Proxies:              1
          Targets:              1
          Cluster Map version:  1
          Status:               ready
        $ ais show cluster smap | grep -c Primary
        1
        $ ais show cluster --json | python -c 'import json, sys; print(sorted(json.load(sys.stdin)))'
        ['nodes', 'primary', 'uuid', 'version']
    """)
