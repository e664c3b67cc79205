"""A record of each prediction that tells when it was tampered with, written off the way of requests.

    Pipeline ──record()──► buffer ──► writer (a thread) ──► records: lines ──► chain: one seal a block ──► sink
                                                                                  file, stdout, Kafka

`verify` reads what was written and says where it was changed; `python -m canarium_runtime.audit verify` and
`canarium audit verify` are its commands. Only `log` knows the clock and the thread.
"""
