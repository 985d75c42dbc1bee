-- What schema 1 of the sqlite provider held: its tables as they were, and the memories of two users.

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

INSERT INTO store VALUES (1, 1, NULL, NULL, NULL, NULL);
INSERT INTO memories VALUES (1, '01a226c0-cfb6-8a29-9fe8-6377a5edfbc1', 'ada', 'likes tea', 'drinks/hot', '["t","u"]', '{"app":"notes"}', 0.5, NULL, NULL, '[]', NULL, NULL, '{"x-app":{"k":[1]}}', NULL, NULL, 1795946500024753, NULL);
INSERT INTO memories VALUES (2, '01a226c0-cfd0-8a29-9e23-9cf0ac8d0806', 'ada', 'lives in Ulm', NULL, '[]', NULL, NULL, NULL, NULL, '[]', '01a226c0-cfdc-8a29-8a33-660fd51022c8', 1795946500057023, '{}', NULL, NULL, 1795946500049184, NULL);
INSERT INTO memories VALUES (3, '01a226c0-cfd8-8a29-88a1-becd8aa3f302', 'ada', 'lives in Bonn', NULL, '[]', NULL, NULL, NULL, NULL, '["01a226c0-cfd0-8a29-9e23-9cf0ac8d0806"]', NULL, NULL, '{}', NULL, NULL, 1795946500057023, NULL);
INSERT INTO memories VALUES (4, '01a226c0-cfdc-8a29-8a33-660fd51022c8', 'ada', 'lives in Kiel', NULL, '[]', NULL, NULL, NULL, NULL, '["01a226c0-cfd0-8a29-9e23-9cf0ac8d0806"]', NULL, NULL, '{}', NULL, NULL, 1795946500061017, NULL);
INSERT INTO memories VALUES (5, '01a226c0-cfe4-8a29-812d-aa4f8efc0357', 'ada', 'works at Acme', NULL, '[]', NULL, NULL, NULL, NULL, '[]', '01a226c0-cfe7-8a29-996e-06ae2bf61736', 1795946500071719, '{}', NULL, NULL, 1795946500068969, NULL);
INSERT INTO memories VALUES (6, '01a226c0-cfe7-8a29-996e-06ae2bf61736', 'ada', 'works at Initech', NULL, '[]', NULL, NULL, 2208988800000000, NULL, '["01a226c0-cfe4-8a29-812d-aa4f8efc0357"]', NULL, NULL, '{}', NULL, NULL, 1795946500071719, NULL);
INSERT INTO memories VALUES (7, '01a226c0-cff0-8a29-8841-20585ee0cff1', 'ada', 'has a cat', NULL, '[]', NULL, NULL, NULL, NULL, '[]', '01a226c0-cff8-8a29-9acf-65d2cdbbcf65', 1795946500088906, '{}', NULL, NULL, 1795946500080957, NULL);
INSERT INTO memories VALUES (8, '01a226c0-cffd-8987-92be-bbd521293118', 'bob', 'likes milk', NULL, '[]', NULL, NULL, NULL, NULL, '[]', NULL, NULL, '{}', NULL, NULL, 1795946500093726, NULL);
INSERT INTO words (rowid, terms) VALUES (1, 'd9b60005cdfdbff5 afd55d829a92c1b7 372a1f976620006c');
INSERT INTO words (rowid, terms) VALUES (2, '92f178359cc7d707 2a0ad3cd347e975d 771d43d38de5dc95 5f67a9a66a1cca4d');
INSERT INTO words (rowid, terms) VALUES (3, '92f178359cc7d707 2a0ad3cd347e975d b07a8d96b9dfb0bb 5f67a9a66a1cca4d 68444fb0edc9ae73');
INSERT INTO words (rowid, terms) VALUES (4, '92f178359cc7d707 2a0ad3cd347e975d 19d32db5bffac436 5f67a9a66a1cca4d 46c2ec1c67f06473');
INSERT INTO words (rowid, terms) VALUES (5, 'a1744c362170f172 a4baa449cefd4dfc 9cad997147454b7d 89aee0502245dc01');
INSERT INTO words (rowid, terms) VALUES (6, 'a1744c362170f172 a4baa449cefd4dfc 27737c8d8297d597 89aee0502245dc01 c1da253242dc57fe ae009f685c09165a 2c8a2eaaa8c9c5b1');
INSERT INTO words (rowid, terms) VALUES (7, 'dbdec9952e9cc3b1 5548447a7a704708 2697076f5a8b9d08');
INSERT INTO words (rowid, terms) VALUES (8, 'b8f5f16d558d1e40 b9d205620acfcb01 5669eefffe50a1d9 8e116afedd48c75f');
INSERT INTO keys VALUES ('ada', '01a226c0-cfd0-8a29-9e23-9cf0ac8d0806', '01a226c0-cfd0-8a29-9e23-9cf0ac8d0806', x'd115208e2ecc9578bfcb08acff087cc4');
INSERT INTO keys VALUES ('ada', '01a226c0-cfd8-8a29-88a1-becd8aa3f302', '01a226c0-cfd8-8a29-88a1-becd8aa3f302', x'7d11a1da5f50b50468a75b473ea18248');
INSERT INTO keys VALUES ('ada', '01a226c0-cfdc-8a29-8a33-660fd51022c8', '01a226c0-cfdc-8a29-8a33-660fd51022c8', x'47e3b39a93348c63a3f5742d82e75d93');
INSERT INTO keys VALUES ('ada', '01a226c0-cfe4-8a29-812d-aa4f8efc0357', '01a226c0-cfe4-8a29-812d-aa4f8efc0357', x'2512fadd91c8f9bf1026a03e8adb1ccc');
INSERT INTO keys VALUES ('ada', '01a226c0-cfe7-8a29-996e-06ae2bf61736', '01a226c0-cfe7-8a29-996e-06ae2bf61736', x'4200950e9a4de4c173fbec87255aec47');
INSERT INTO keys VALUES ('ada', '01a226c0-cff0-8a29-8841-20585ee0cff1', '01a226c0-cff0-8a29-8841-20585ee0cff1', x'ce9c1b97e05fa1f591bfcd8d47391f8c');
INSERT INTO keys VALUES ('ada', '01a226c0-cff8-8a29-9acf-65d2cdbbcf65', '01a226c0-cff8-8a29-9acf-65d2cdbbcf65', x'de0bbb52020e25697ebad7e108e99637');
INSERT INTO keys VALUES ('ada', 'once', '01a226c0-cfb6-8a29-9fe8-6377a5edfbc1', x'a97120cbb9da04800dc548635bdf28ec');
INSERT INTO keys VALUES ('bob', '01a226c0-cffd-8987-92be-bbd521293118', '01a226c0-cffd-8987-92be-bbd521293118', x'3240e6f4a155bce0ccb80f4c5dce5216');
INSERT INTO audit VALUES (1, 'ada', 1795946500024653, 'notes', 'add', '01a226c0-cfb6-8a29-9fe8-6377a5edfbc1', 'drinks/hot', 'f804769064abfb23');
INSERT INTO audit VALUES (2, 'ada', 1795946500049157, NULL, 'add', '01a226c0-cfd0-8a29-9e23-9cf0ac8d0806', NULL, '5e868df4425ae1af');
INSERT INTO audit VALUES (3, 'ada', 1795946500057000, NULL, 'add', '01a226c0-cfd8-8a29-88a1-becd8aa3f302', NULL, '18a0e5877ff04241');
INSERT INTO audit VALUES (4, 'ada', 1795946500060997, NULL, 'add', '01a226c0-cfdc-8a29-8a33-660fd51022c8', NULL, '89df07ec9a267539');
INSERT INTO audit VALUES (5, 'ada', 1795946500068951, NULL, 'add', '01a226c0-cfe4-8a29-812d-aa4f8efc0357', NULL, '1d3f62626a4e7029');
INSERT INTO audit VALUES (6, 'ada', 1795946500071701, NULL, 'add', '01a226c0-cfe7-8a29-996e-06ae2bf61736', NULL, 'd042b861c64d8dc0');
INSERT INTO audit VALUES (7, 'ada', 1795946500080937, NULL, 'add', '01a226c0-cff0-8a29-8841-20585ee0cff1', NULL, '07254d25adc60dd1');
INSERT INTO audit VALUES (8, 'ada', 1795946500088885, NULL, 'add', '01a226c0-cff8-8a29-9acf-65d2cdbbcf65', NULL, '3f742fa4898eea28');
INSERT INTO audit VALUES (9, 'ada', 1795946500092951, NULL, 'delete', '01a226c0-cff8-8a29-9acf-65d2cdbbcf65', NULL, '7a53ec8267cf71d2');
INSERT INTO audit VALUES (10, 'bob', 1795946500093711, NULL, 'add', '01a226c0-cffd-8987-92be-bbd521293118', NULL, '2c97d93dfe9825d3');
