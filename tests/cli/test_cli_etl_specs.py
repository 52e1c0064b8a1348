"""`ais etl init -f`: transforms from specifications, and what is wrong in one, word for word."""

from __future__ import annotations


def test_transforms_from_a_file(transcript):
    transcript(r"""
        $ ais create ais://specs; printf hello | ais put - ais://specs/o
        "ais://specs" created
        PUT "-" => ais://specs/o
        $ echo 'def transform(data): return data[::-1]' > back.py
        $ printf '%s\n' 'name: from-image' 'runtime: {image: aistorage/transformer_md5}' '---' > two.yaml
        $ printf '%s\n' 'name: from-file' 'runtime: {file: back.py}' 'deterministic: true' >> two.yaml
        $ ais etl init -f two.yaml 2> progress | sed 's/etl-[0-9]*/<job>/'
        ETL[from-image]: job "<job>"
        ETL[from-file]: job "<job>"
        $ cut -d : -f 1 progress
        importing
        ready
        importing
        ready
        $ ais etl object from-image ais://specs/o -; echo
        5d41402abc4b2a76b9719d911017c592
        $ ais etl object from-file ais://specs/o -; echo
        olleh
        $ ais etl show -H | grep from- | tr -s ' ' | cut -d ' ' -f 1-2,6
        from-file Running code
        from-image Running code
        $ ais etl show from-image | grep image | tr -s ' '
        image aistorage/transformer_md5
        name from-image
        $ ais etl init -f two.yaml 2>&1 | tail -2
        Error: etl job from-image already exists
        Hint: remove it with `ais etl rm from-image` or choose another name
        $ ais etl init -f two.yaml --name one-name
        ! Usage: ais etl init [OPTIONS] COMMAND [ARGS]...
        ! Try 'ais etl init --help' for help.
        !
        ! Error: --name is for one transform, and two.yaml has 2
        [2]
        $ ais etl rm from-image from-file
        ETL[from-image] successfully deleted
        ETL[from-file] successfully deleted
    """)


def test_what_the_command_line_says_comes_first(transcript):
    transcript(r"""
        $ echo 'name: other-name' > spec.yaml
        $ echo 'runtime: {image: aistorage/transformer_echo, env: [{name: K, value: v}]}' >> spec.yaml
        $ ais etl init spec spec.yaml --name own-name --comm-type hpull --init-timeout 2m --obj-timeout 7s > o 2>&1
        $ tail -1 o | sed 's/etl-[0-9]*/<job>/'
        ETL[own-name]: job "<job>"
        $ ais etl show own-name | tr -s ' ' | grep -E '^(comm|env|init|obj_|image|kind)'
        communication hpull://
        env K=v
        image aistorage/transformer_echo
        init_timeout 2m
        kind code
        obj_timeout 7s
        $ ais etl init -f - --name own-other < spec.yaml 2> progress | sed 's/etl-[0-9]*/<job>/'
        ETL[own-other]: job "<job>"
        $ ais etl rm own-name own-other
        ETL[own-name] successfully deleted
        ETL[own-other] successfully deleted
    """)


def test_what_is_wrong_in_a_specification(transcript):
    transcript(r"""
        $ printf '%s\n' 'name: wrong-one' 'runtime: {comand: [x]}' > typo.yaml
        $ ais etl init -f typo.yaml
        ! Error: unknown key 'runtime.comand'
        ! Hint: did you mean 'command'?
        [1]
        $ printf '%s\n' 'name: wrong-one' 'runtime: {image: a/b}' 'init_timeout: 5' > time.yaml
        $ ais etl init -f time.yaml
        ! Error: init_timeout: 5 is not text
        ! Hint: put it in quotes
        [1]
        $ printf 'name: [' > broken.yaml
        $ ais etl init -f broken.yaml 2>&1 | cut -c 1-46
        Error: broken.yaml cannot be read as YAML: whi
        $ : > empty.yaml; ais etl init -f empty.yaml
        ! Error: the specification is empty
        ! Hint: expected name, runtime, …; see `ais etl init --help`
        [1]
        $ printf 'runtime: {image: a/b}' > noname.yaml
        $ ais etl init -f noname.yaml
        ! Error: the specification has no name
        ! Hint: give one with --name
        [1]
        $ ais etl init spec
        ! Usage: ais etl init spec [OPTIONS] [FILE|URL|-]
        ! Try 'ais etl init spec --help' for help.
        !
        ! Error: name one specification
        [2]
        $ printf '%s\n' 'name: wrong-one' 'runtime: {file: gone.py}' > file.yaml
        $ ais etl init -f file.yaml 2>&1 | sed 's/: .*gone/: gone/'
        Error: gone.py: No such file or directory
        $ ais etl init -f http://127.0.0.1:1/spec.yaml 2>&1 | tail -1 | cut -c 1-51
        Error: <endpoint>/spec.yaml cannot be read:
        $ ais etl show -H wrong-one
        ! Error: etl job wrong-one does not exist
        ! Hint: `ais etl list` shows the transforms there are
        [1]
    """)


def test_new_options_of_code(transcript):
    transcript(r"""
        $ echo 'import os' > env.py; echo 'def transform(data): return os.environ["COLOUR"].encode()' >> env.py
        $ ais create ais://options; printf hello | ais put - ais://options/o
        "ais://options" created
        PUT "-" => ais://options/o
        $ ais etl init code --name env-etl --from-file env.py --env COLOUR=blue --deterministic 2> progress
        env-etl
        $ ais etl object env-etl ais://options/o -; echo
        blue
        $ ais etl init code --name env-other --from-file env.py --env COLOUR
        ! Usage: ais etl init code [OPTIONS]
        ! Try 'ais etl init code --help' for help.
        !
        ! Error: --env 'COLOUR' is no variable: expected NAME=VALUE
        [2]
        $ ais etl init code --name env-other --from-file env.py --memory lots
        ! Error: memory: 'lots' is not an amount of memory
        ! Hint: expected for example 512Mi, 1Gi or 2G
        [1]
        $ ais etl rm env-etl
        ETL[env-etl] successfully deleted
    """)
