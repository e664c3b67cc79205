"""Shadow rollouts: the same requests answered by two revisions, and a third process that compares the answers.

In every server (both revisions run the same code, and do not know which of the two they are):

    records     what is kept of a request                                        pure
    answers     AnswerLog: a bounded record of the latest answers, made only while somebody fetches them
    wire        answers to bytes and back
    endpoint    where they are fetched, on a port of its own

In the comparer, `python -m canarium_runtime.shadow`:

    targets     file -> addresses of pods                                        IO
    puller      fetches from one pod                                             IO
    comparer    one round after another: fetch, pair, compare, count             IO
    pairing     answers -> pairs of the same request                             pure
    comparison  pair -> how they differ                                          pure
    windows     distribution (PSI) and ranking (Spearman) of an output           pure
    report      counts, as Prometheus' series                                    pure
"""
