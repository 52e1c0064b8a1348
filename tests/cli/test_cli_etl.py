"""`ais etl`: everything it says, word for word."""

from __future__ import annotations


def test_life_of_a_transform(transcript):
    transcript(r"""
        $ printf 'import sys; sys.stdout.write(sys.stdin.read().upper())' > up.py
        $ ais create ais://etl; printf hello | ais put - ais://etl/o
        "ais://etl" created
        PUT "-" => ais://etl/o
        $ ais etl show
        $ ais etl init code --name=upper-case --from-file=up.py --comm-type io:// 2> progress
        upper-case
        $ cut -d : -f 1 progress
        importing
        ready
        $ ais etl init code --name upper-case --from-file up.py --comm-type io:// 2>&1 | tail -2
        Error: etl job upper-case already exists
        Hint: remove it with `ais etl rm upper-case` or choose another name
        $ ais etl object upper-case ais://etl/o -; echo
        HELLO
        $ ais etl object upper-case ais://etl/o out; cat out; echo
        HELLO
        $ ais etl object upper-case ais://etl/o /dev/null
        $ ais etl object upper-case ais://etl/missing -
        ! Error: ais://etl/missing does not exist
        [1]
        $ ais etl object missing-etl ais://etl/o -
        ! Error: etl job missing-etl does not exist
        ! Hint: `ais etl list` shows the transforms there are
        [1]
        $ ais etl list | tr -s ' ' | cut -d ' ' -f 1-2,5-
        NAME STAGE ERRORS KIND SANDBOX
        upper-case Running 0 code ON
        $ ais etl ls -H | cut -c 1-19
        upper-case  Running
        $ ais etl show upper-case | tr -s ' ' | grep -E 'PROP|comm|iso|sandbox |runtime|stage'
        PROPERTY VALUE
        communication io://
        isolation warm
        runtime python3
        sandbox on
        stage Running
        $ ais etl show upper-case | grep sandbox_layers | grep -o seccomp
        seccomp
        $ ais etl show upper-case --json > shown.json
        $ python -c 'import json; print(*sorted(json.load(open("shown.json"))), sep=chr(10))'
        bytes_in
        bytes_out
        cache
        communication
        cpu
        dependencies
        deterministic
        digest
        errors
        init_timeout
        isolation
        kind
        lock
        memory
        name
        network
        obj_timeout
        objects
        processes
        python
        runtime
        sandbox
        sandbox_layers
        sandbox_missing
        stage
        xaction
        $ python -c 'import json; shown = json.load(open("shown.json")); print(len(shown["digest"]), shown["lock"])'
        16 []
        $ python -c 'import json; print("seccomp" in str(json.load(open("shown.json"))["sandbox_layers"]))'
        True
        $ ais etl show missing-etl
        ! Error: etl job missing-etl does not exist
        ! Hint: `ais etl list` shows the transforms there are
        [1]
        $ ais etl stop upper-case
        ETL[upper-case] stopped
        $ ais etl object upper-case ais://etl/o -
        ! Error: etl job upper-case is Aborted (stopped)
        ! Hint: start it with `ais etl start upper-case`
        [1]
        $ ais etl start upper-case
        ETL[upper-case] started successfully
        $ ais etl rm upper-case
        ETL[upper-case] successfully deleted
        $ ais etl rm upper-case
        ! Error: etl job upper-case does not exist
        ! Hint: `ais etl list` shows the transforms there are
        [1]
        $ ais etl show
    """)


def test_a_transform_does_not_steer_the_terminal(transcript):
    transcript(r"""
        $ printf 'import sys\nprint(chr(27) + "]0;title", file=sys.stderr)\nsys.exit(chr(27) + "[2Jtwo")\n' > rude.py
        $ ais create ais://rude; printf abc | ais put - ais://rude/o
        "ais://rude" created
        PUT "-" => ais://rude/o
        $ ais etl init code --name rude-one --from-file rude.py --comm-type io:// 2> /dev/null
        rude-one
        $ ais etl object rude-one ais://rude/o -
        ! Error: ETL error: rude-one failed on ais://rude/o: \x1b[2Jtwo
        ! \x1b]0;title
        ! \x1b[2Jtwo
        [1]
        $ ais etl logs rude-one
        [rude/o] \x1b]0;title
        \x1b[2Jtwo
        $ ais etl rm rude-one
        ETL[rude-one] successfully deleted
    """)


def test_transforms_that_cannot_be_made(transcript):
    transcript("""
        $ echo 'import no_such_module' > broken.py
        $ echo "raise ModuleNotFoundError(\\"No module named 'cv2'\\")" > known.py
        $ echo x > t.py
        $ ais etl init code --name broken --from-file broken.py --comm-type io:// 2>&1 | tail -2
        ModuleNotFoundError: No module named 'no_such_module'
        Hint: put the package that has 'no_such_module' into the file of --deps-file
        $ ais etl init code --name broken --from-file known.py 2>&1 | tail -1
        Hint: put 'opencv-python-headless' into the file of --deps-file
        $ ais etl init code --from-file t.py --replace 2>&1 | tail -1
        Error: --replace needs --name
        $ echo 'def transform(data): return data.no_such' > function.py
        $ ais etl init code --name broken --from-file function.py --comm-type io:// 2>&1 | tail -1 | cut -d : -f 3,5-
         function.py: use --comm-type hpush://
        $ ais etl init code --name x --from-file t.py
        ! Error: etl name 'x' is not valid
        ! Hint: expected 6 to 32 letters, digits, '-' or '_', starting and ending with a letter or digit
        [1]
        $ ais etl init code --name long-name --from-file t.py --comm-type ftp://
        ! Error: unknown communication type 'ftp://'
        ! Hint: expected one of: hpush://, hpull://, ws://, io://, hrev://
        [1]
        $ ais etl init code --name long-name --from-file missing.py
        ! Usage: ais etl init code [OPTIONS]
        ! Try 'ais etl init code --help' for help.
        !
        ! Error: Invalid value for '--from-file': 'missing.py': No such file or directory
        [2]
        $ ais etl init -f spec.yaml
        ! Error: spec.yaml: No such file or directory
        [1]
        $ ais etl rm broken 2> /dev/null || true
    """)


def test_a_transform_without_walls_is_said_to_be_one(transcript):
    transcript(r"""
        $ printf 'def transform(data):\n    return data[::-1]\n' > back.py
        $ ais create ais://etl-off; printf abc | ais put - ais://etl-off/o
        "ais://etl-off" created
        PUT "-" => ais://etl-off/o
        $ ais etl init code --name no-walls --from-file back.py --sandbox off 2>&1 | tail -2
        Warning: no-walls runs without the sandbox: its code may do all that the store may
        no-walls
        $ ais etl object no-walls ais://etl-off/o -; echo
        cba
        $ ais etl show --json | python -c 'import json, sys; print([etl["sandbox"] for etl in json.load(sys.stdin)])'
        ['off']
        $ ais show etl | awk '{print $1, $NF}'
        NAME SANDBOX
        no-walls OFF
        $ ais etl logs no-walls
        $ ais etl rm --all
        ETL[no-walls] successfully deleted
        $ ais etl stop
        ! Usage: ais etl stop [OPTIONS] [NAME]...
        ! Try 'ais etl stop --help' for help.
        !
        ! Error: name the transforms, or give --all
        [2]
    """)


def test_code_is_changed_with_replace(transcript):
    transcript(r"""
        $ printf 'def transform(data):\n    return data[::-1]\n' > code.py; ais create ais://etl-new
        "ais://etl-new" created
        $ printf abc | ais put - ais://etl-new/o
        PUT "-" => ais://etl-new/o
        $ ais etl init code --name new-code --from-file code.py --replace 2> /dev/null
        new-code
        $ printf 'def transform(data):\n    return data.upper()\n' > code.py
        $ ais etl init code --name new-code --from-file code.py --replace 2> /dev/null
        new-code
        $ ais etl object new-code ais://etl-new/o -; echo
        ABC
        $ printf 'def transform(data):\n    return 1 / 0\n' > code.py
        $ ais etl init code --name new-code --from-file code.py --replace 2> /dev/null
        new-code
        $ ais etl object new-code ais://etl-new/o - 2> /dev/null
        [1]
        $ ais etl object new-code ais://etl-new/o - 2>&1 | grep -v '~' | tail -3
          File "code.py", line 2, in transform
            return 1 / 0
        ZeroDivisionError: division by zero
        $ timeout 60 bash -c 'until ais etl ls --json | grep -o "\"errors\": 2"; do :; done'
        "errors": 2
        $ ais etl rm new-code
        ETL[new-code] successfully deleted
    """)
