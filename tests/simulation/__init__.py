"""A whole deployment in one process, in time and on a network that only exist here.

The code is the product's: `pki`, `protocol`, `agents.member`, `agents.responder`, and the four
daemons, from the bytes of a TLS handshake to what an administrator asks. What it stands on is
ours, and lies on request:

    loop       time that leaps to the next timer: an hour takes as long as what happens in it
    network    connections that are slow, reset, cut off, half open or damage bytes, that are heard
               when their client has long been heard on another, and roads that a thief bends
    disk       files that fail before, in the middle and after a write; what a kill leaves, and
               what a loss of power does
    store      the server's database in memory, with its real schema, statements and groups
    clock      policy time of each machine, set wrong at will
    machine    programs that are killed, stopped and started again from their files
    thief      stolen keys, a listener that shows them, a hub that comes with them, and histories
               made with them

One seed is one run: `plan` draws from it who is there and what befalls them, `world` plays it,
`watch` looks on and says what must never be, `run` adds what must be true in the end. One seed
in four has a DMZ: a hub, one or two zone servers, and clients behind them, whom an administrator
lets in, dismisses and lets in again.

    make simulate SEEDS=1000        seeds 0 to 999
    make simulate SEED=17           that one, with its trace

**What is replayed.** The plan is a function of the seed alone. So is everything that the
product draws from `secrets` (jitter, nonces, serial numbers, tokens) and every private key, for
both are drawn from the seed here (`chance`). What OpenSSL draws inside a handshake or a
signature is not: two runs of one seed differ in the bytes of signatures and of TLS records, and
by a byte or two in their lengths. Nothing here is timed by a length, so a run takes the same
way again unless an order of a `set` decides something; `make simulate` fixes PYTHONHASHSEED.

Noise hits at a share of a length, so in a handshake it may hit another byte the next time.

**What is torn.** A disk that lies tears what has two generations: the ledger. A zone server's log
is cut at its end, in a batch that nobody was told of. Any other file is whole, old or new, as a
rename leaves it, with the temporary file of a write that was broken off; that a torn one is
refused by name is tested elsewhere.

**What is not here.** No API socket, no `status.json`, no control socket: they are stubs. The
database has no file: a group of writes is there or lost as a whole, and what SQLite does below
that (its log, its syncs, a torn page) is tested with real processes. No thread runs beside the
loop: what one would do is done at one moment, a moment later. A zone server's log is compacted
when it starts, and never grows enough here to be compacted while it runs.
"""
