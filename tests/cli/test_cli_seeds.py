"""Seeds and kept results on the command line."""

from __future__ import annotations


def test_a_seeded_object_and_what_is_kept(transcript):
    transcript(r"""
        $ printf 'import random\ndef transform(data):\n    return b"%%d" %% random.getrandbits(60)\n' > draw.py
        $ ais create ais://seeds; printf hello | ais put - ais://seeds/o
        "ais://seeds" created
        PUT "-" => ais://seeds/o
        $ ais etl init code --name drawing --from-file draw.py --cache 2> /dev/null
        drawing
        $ for seed in 1 1 2; do ais etl object drawing ais://seeds/o - --seed $seed; echo; done | uniq | wc -l
        2
        $ for read in 1 2; do ais etl object drawing ais://seeds/o -; echo; done | uniq | wc -l
        2
        $ ais etl object drawing cp ais://seeds/o ais://seeds/copied --seed 1 > /dev/null
        $ ais etl bucket drawing ais://seeds ais://seeded --list o --seed 1 --wait > /dev/null 2>&1
        $ test "$(ais get ais://seeds/copied -)" = "$(ais get ais://seeded/o -)" && echo equal
        equal
        $ ais etl show drawing | tr -s ' ' | grep -E '^(cache|determ)' | grep -v bytes
        cache true
        cache_hits 3
        cache_misses 2
        cache_objects 2
        deterministic false
        $ ais etl object drawing ais://seeds/o - --seed ''
        ! Error: a seed of 0 characters
        ! Hint: expected 1 to 256, for example seed=42; leave it out for random results
        [1]
        $ ais etl rm drawing
        ETL[drawing] successfully deleted
    """)
