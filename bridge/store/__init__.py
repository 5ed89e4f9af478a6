"""Store: the only SQL of the bridge, on SQLite or PostgreSQL.

Foundations:

- `schema`: the tables; `migrate` and `migrations`: bring a database to this schema
- `database`: transactions, locks, the shared clock, change notifications, errors
- `sqlite_write_queue`: orders the writers to a SQLite file; `pg_notify`: wakes workers through PostgreSQL
- `bulk`: inserts and updates many rows with one statement

The path of an event:

- `ingest`: stores incoming events and rejected requests; `ingest_priority`: lets routing pause during bursts
- `routing`: turns stored events into deliveries; `event_cache`: the events that were parsed last
- `claim`: selects due deliveries and starts their attempts, with the data that `policy_inputs` loads
- `results`: records the results of attempts; `delivery_status`: records what providers report later
- `follow_ups`: creates the deliveries that report failures

The state of a delivery:

- `deliveries`: rows and options as typed values
- `transitions`: the only module that changes the state, as `bridge.lifecycle` decides

State that deliveries share:

- `idempotency`: side effects in progress and completed
- `connections`: pauses, circuit breakers and request budgets
- `opt_outs`: who wants no messages; `contact_links`: the other addresses of a contact; `undeliverable`: dead addresses
- `contact_cache`, `workers` (heartbeats)

Operators:

- `operator_actions`: retry, replay, cancel, resolve, accept; `audit_log`: who did what
- `queries`, `opt_out_list`, `search` and `timeline`: what the command line, the API and the dashboard show
- `retention` and `erase`: delete personal data
"""
