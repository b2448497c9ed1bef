-- One text for both databases. {serial} is the only word that differs (store/migrate.rs). Text, whole numbers and
-- JSON as text: what both know. Times are milliseconds since 1970-01-01 UTC.

CREATE TABLE tenant (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    server_limit BIGINT NOT NULL,
    servers BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);

-- A deleted server stays as a row with deleted_at: its version goes on rising if the name comes back, and the index
-- can be told of the deletion again.
CREATE TABLE server (
    tenant TEXT NOT NULL REFERENCES tenant (id),
    name TEXT NOT NULL,
    profile TEXT NOT NULL,
    mode TEXT NOT NULL,
    node TEXT,
    memory_bytes BIGINT NOT NULL,
    address TEXT,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    deleted_at BIGINT,
    -- Of what the operator wrote: the ETag.
    version BIGINT NOT NULL,
    -- Of everything that the index shows, status included.
    sequence BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE INDEX server_by_node ON server (node, tenant, name);
CREATE INDEX server_by_profile ON server (profile, tenant, name);

CREATE TABLE server_report (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    stage TEXT NOT NULL,
    since_at BIGINT NOT NULL,
    flows BIGINT NOT NULL,
    resident_bytes BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    last_player_at BIGINT,
    kept TEXT,
    note TEXT,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE usage_day (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    day BIGINT NOT NULL,
    awake_ms BIGINT NOT NULL,
    dozing_ms BIGINT NOT NULL,
    deep_ms BIGINT NOT NULL,
    resident_mib_seconds BIGINT NOT NULL,
    saved_mib_seconds BIGINT NOT NULL,
    wakes BIGINT NOT NULL,
    PRIMARY KEY (tenant, name, day)
);

CREATE TABLE node (
    name TEXT PRIMARY KEY,
    total_bytes BIGINT NOT NULL,
    facts TEXT,
    -- By our clock, and by the node's own: an older report that comes late is no news.
    reported_at BIGINT,
    clock_at BIGINT,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);

CREATE TABLE profile (
    name TEXT PRIMARY KEY,
    version BIGINT NOT NULL
);

-- The shipped games that were offered to this region once: what an operator removed stays removed.
CREATE TABLE shipped_profile (
    name TEXT PRIMARY KEY
);

-- A game's layer has no tenant: tenant = '' and target = the profile. A server's: its tenant, target = its name.
CREATE TABLE threshold (
    tenant TEXT NOT NULL,
    target TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, target, key)
);
CREATE TABLE threshold_change (
    entry {serial},
    tenant TEXT NOT NULL,
    target TEXT NOT NULL,
    key TEXT NOT NULL,
    old_value TEXT,
    new_value TEXT,
    changed_by TEXT NOT NULL,
    reason TEXT,
    changed_at BIGINT NOT NULL
);
CREATE INDEX threshold_change_of ON threshold_change (tenant, target, entry);

CREATE TABLE command (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    node TEXT NOT NULL,
    asked TEXT NOT NULL,
    decided_on TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    state TEXT NOT NULL,
    detail TEXT
);
CREATE INDEX command_waiting ON command (expires_at) WHERE state = 'waiting';

CREATE TABLE api_key (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    role TEXT NOT NULL,
    tenant TEXT,
    node TEXT,
    -- argon2id, in PHC form.
    hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);

-- What a write answered, by the asker's Idempotency-Key.
CREATE TABLE idempotency (
    subject TEXT NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,
    answer TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (subject, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- Written in the transaction of the change. `position` is given after the commit by one sequencer at a time: without
-- gaps, and never before what a reader has already seen (a bare serial can commit out of order).
CREATE TABLE outbox (
    entry {serial},
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT,
    tenant TEXT,
    data TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    position BIGINT UNIQUE
);
CREATE INDEX outbox_new ON outbox (entry) WHERE position IS NULL;

-- The last position given ('sequencer') and the last one that a sink has taken ('redis').
CREATE TABLE relay (
    name TEXT PRIMARY KEY,
    position BIGINT NOT NULL
);
INSERT INTO relay (name, position) VALUES ('sequencer', 0);

CREATE TABLE erasure (
    id TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    tenant TEXT,
    requested_at BIGINT NOT NULL,
    deadline_at BIGINT NOT NULL,
    completed_at BIGINT,
    version BIGINT NOT NULL
);
CREATE INDEX erasure_open ON erasure (deadline_at) WHERE completed_at IS NULL;
CREATE TABLE erasure_service (
    erasure TEXT NOT NULL REFERENCES erasure (id),
    service TEXT NOT NULL,
    state TEXT NOT NULL,
    rows_erased BIGINT NOT NULL,
    reason TEXT,
    answered_at BIGINT,
    PRIMARY KEY (erasure, service)
);
