"""Batch jobs: rows that are taken now and answered later, by workers.

    states       what a job can become, as one table                      pure
    record       what is known of a job                                   pure
    decisions    record and event -> record and effects                   pure
    chunks       rows -> chunks, and their bytes                          pure
    results      chunks -> JSON lines or CSV, in the order of the rows    pure
    sources      JSON lines, CSV, Parquet -> rows
    network      no request to an address that is not meant to be reached
    store        records in Redis; each change is one transaction
    queue        chunks in Redis Streams; leases
    hooks        webhooks that are due          presence     which workers there are
    inference    rows -> answers, by the one service that all requests use
    worker       takes chunks; upkeep, webhooks beside it
    requests     the body of POST /jobs         api, routes  what clients can do

Two streams carry work: `intake` names jobs that no revision has begun, and each revision has one of chunks.
"""
