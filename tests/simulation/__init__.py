"""A whole deployment in one process, in time and on a network that only exist here.

The code is the product's: `pki`, `protocol`, `agents.member`, `agents.responder`,
`agents.server` and `agents.client`, from the bytes of a TLS handshake to what an administrator
asks. What it stands on is ours, and lies on request:

    loop       time that leaps to the next timer: an hour takes as long as what happens in it
    network    connections that are slow, reset, cut off or half open, and roads that a thief bends
    disk       files that fail before, in the middle and after a write; what a kill leaves
    store      the server's database in memory, with its real schema
    clock      policy time of each machine, set wrong at will
    machine    programs that are killed, stopped and started again from their files
    thief      stolen keys, a listener that shows them, and histories made with them

One seed is one run: `plan` draws from it who is there and what befalls them, `world` plays it,
`watch` looks on and says what must never be, `run` adds what must be true in the end.

    make simulate SEEDS=1000        seeds 0 to 999
    make simulate SEED=17           that one, with its trace

**What is replayed.** The plan is a function of the seed alone. So is everything that the
product draws from `secrets` (jitter, nonces, serial numbers, tokens) and every private key, for
both are drawn from the seed here (`chance`). What OpenSSL draws inside a handshake or a
signature is not: two runs of one seed differ in the bytes of signatures and of TLS records, and
by a byte or two in their lengths. Nothing here is timed by a length, so a run takes the same
way again unless an order of a `set` decides something; `make simulate` fixes PYTHONHASHSEED.

**What is not here.** One server and its clients; no hub and no zone server. No API socket, no
`status.json`, no control socket: they are stubs. A write of the store takes its time and can
fail, but a torn database is SQLite's business, and is tested with real processes.
"""
