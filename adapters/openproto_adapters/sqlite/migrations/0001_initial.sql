-- One statement each; all of them are safe to repeat. Moments are microseconds since 1970 in UTC.

CREATE TABLE IF NOT EXISTS store (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    version INTEGER NOT NULL,
    model TEXT,                       -- NULL: the store works by text alone
    dim INTEGER,
    next_model TEXT,                  -- what a re-embedding under way is filling next_embedding for
    next_dim INTEGER
) STRICT;

CREATE TABLE IF NOT EXISTS memories (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    content TEXT NOT NULL,
    scope TEXT,
    tags TEXT NOT NULL,               -- JSON, as are source, supersedes, and extensions
    source TEXT,
    confidence REAL,
    valid_from INTEGER,
    valid_to INTEGER,
    supersedes TEXT NOT NULL,
    superseded_by TEXT,
    superseded_at INTEGER,
    extensions TEXT NOT NULL,
    embedding BLOB,                   -- half precision, of unit length
    next_embedding BLOB,
    created_at INTEGER NOT NULL,
    updated_at INTEGER
) STRICT;

CREATE INDEX IF NOT EXISTS memories_listing ON memories (user_id, created_at DESC, id DESC);

-- Terms are hexadecimal and mixed with the user (statements.py), so a look-up reads one user's entries only.
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (terms, detail = none, tokenize = 'ascii');

-- Which add wrote which memory. A key outlives its memory: repeating an old add must not bring back what was deleted.
CREATE TABLE IF NOT EXISTS keys (
    user_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    memory_id TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    PRIMARY KEY (user_id, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    app TEXT,
    action TEXT NOT NULL,
    memory_id TEXT,
    scope TEXT,
    request_id TEXT
) STRICT;

CREATE INDEX IF NOT EXISTS audit_listing ON audit (user_id, timestamp DESC, number DESC);
