-- {schema} is openproto's own schema; the types of pgvector are found through search_path while this runs.

CREATE TABLE {schema}.store (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    model text,                       -- NULL: the store works by text alone
    dim integer,
    next_model text,                  -- what a re-embedding under way is filling next_embedding for
    next_dim integer
);
INSERT INTO {schema}.store DEFAULT VALUES;

CREATE TABLE {schema}.memories (
    -- Of fixed width first: what a scan reads then lies at offsets that are known beforehand.
    id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    superseded_at timestamptz,
    valid_from timestamptz,
    valid_to timestamptz CHECK (valid_to > valid_from),
    updated_at timestamptz,
    confidence double precision,
    superseded_by uuid,
    user_id text COLLATE "C" NOT NULL,
    words sparsevec NOT NULL,         -- 1 at the place of each word, for the first of them (vectors.py)
    more_words sparsevec,             -- the others of a long text
    embedding halfvec,                -- of unit length
    next_embedding halfvec,
    content text NOT NULL,
    scope text COLLATE "C",
    tags text[] NOT NULL,
    source json,                      -- json, not jsonb: what was stored comes back to the letter
    supersedes uuid[] NOT NULL,
    extensions json,
    PRIMARY KEY (id, user_id)         -- the user is part of every key, so that the tables can be sharded by it
);
-- Vectors are read by the thousand: kept in the row wherever they fit, they need not be fetched one by one.
ALTER TABLE {schema}.memories ALTER embedding SET STORAGE MAIN, ALTER next_embedding SET STORAGE MAIN;
-- The scan of one user's memories reads the index alone as long as vacuum keeps up with the inserts.
ALTER TABLE {schema}.memories SET (
    autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_insert_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.05
);

-- Which add wrote which memory, where its key is not the memory's own id. A key outlives its memory: repeating an old
-- add must not bring back what was deleted.
CREATE TABLE {schema}.keys (
    memory_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    PRIMARY KEY (user_id, idempotency_key)
);

CREATE TABLE {schema}.audit (
    number bigint GENERATED ALWAYS AS IDENTITY,
    user_id text COLLATE "C" NOT NULL,
    timestamp timestamptz NOT NULL,
    app text,
    action text NOT NULL,
    memory_id text,
    scope text COLLATE "C",
    request_id text
);
CREATE INDEX audit_listing ON {schema}.audit (user_id, timestamp DESC, number DESC);

-- Serves both the listing and the search, which reads this index alone: INCLUDE holds all that a score needs.
CREATE INDEX memories_by_user ON {schema}.memories (user_id, created_at DESC, id DESC)
    INCLUDE (valid_from, valid_to, superseded_at, words, embedding);
CREATE INDEX memories_with_more_words ON {schema}.memories (user_id) WHERE more_words IS NOT NULL;
